//! The rules, and which of them are in force.

/// A rule of the linter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// `StageNameCasing`.
    StageNameCasing,
    /// `FromAsCasing`.
    FromAsCasing,
    /// `NoEmptyContinuation`.
    NoEmptyContinuation,
    /// `ConsistentInstructionCasing`.
    ConsistentInstructionCasing,
    /// `DuplicateStageName`.
    DuplicateStageName,
    /// `ReservedStageName`.
    ReservedStageName,
    /// `JSONArgsRecommended`.
    JsonArgsRecommended,
    /// `MaintainerDeprecated`.
    MaintainerDeprecated,
    /// `UndefinedArgInFrom`.
    UndefinedArgInFrom,
    /// `WorkdirRelativePath`.
    WorkdirRelativePath,
    /// `UndefinedVar`.
    UndefinedVar,
    /// `MultipleInstructionsDisallowed`.
    MultipleInstructionsDisallowed,
    /// `LegacyKeyValueFormat`.
    LegacyKeyValueFormat,
    /// `InvalidBaseImagePlatform`.
    InvalidBaseImagePlatform,
    /// `RedundantTargetPlatform`.
    RedundantTargetPlatform,
    /// `SecretsUsedInArgOrEnv`.
    SecretsUsedInArgOrEnv,
    /// `InvalidDefaultArgInFrom`.
    InvalidDefaultArgInFrom,
    /// `FromPlatformFlagConstDisallowed`.
    FromPlatformFlagConstDisallowed,
    /// `CopyIgnoredFile`.
    CopyIgnoredFile,
    /// `InvalidDefinitionDescription`, which is experimental.
    InvalidDefinitionDescription,
    /// `ExposeProtoCasing`.
    ExposeProtoCasing,
    /// `ExposeInvalidFormat`.
    ExposeInvalidFormat,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::StageNameCasing => ("StageNameCasing", "stage-name-casing", "Stage names should be lowercase"),
            Self::FromAsCasing => {
                ("FromAsCasing", "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword")
            }
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Self::DuplicateStageName => ("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"),
            Self::ReservedStageName => {
                ("ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names")
            }
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Self::UndefinedArgInFrom => {
                ("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs")
            }
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results \
                 if the base image changes",
            ),
            Self::UndefinedVar => ("UndefinedVar", "undefined-var", "Variables should be defined before their use"),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Self::InvalidBaseImagePlatform => {
                ("InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform")
            }
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Self::CopyIgnoredFile => {
                ("CopyIgnoredFile", "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore")
            }
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If \
                 this is not intended to be a description comment, add an empty line or comment between the \
                 instruction and the comment.",
            ),
            Self::ExposeProtoCasing => {
                ("ExposeProtoCasing", "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase")
            }
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error \
                 in a future release",
            ),
        }
    }

    /// The name by which it is skipped.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// What it is about.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.facts().2
    }

    /// Where it is explained; empty where there is no such page.
    #[must_use]
    pub fn url(self) -> String {
        match self.facts().1 {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }

    /// Only in force where it is asked for.
    fn experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

/// `all`, or rules by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selection {
    all: bool,
    names: Vec<String>,
}

impl Selection {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Self { all: true, names: Vec::new() },
            value => Self { all: false, names: value.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name())
    }
}

/// What a `check=` directive says: `skip=A,B;experimental=C;error=true`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    skip: Selection,
    experimental: Selection,
    pub(crate) error: bool,
}

impl Config {
    /// Parses a directive's value, of which only the first word counts.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        use crate::error::quote;
        let mut config = Self::default();
        let value = value.split(' ').next().unwrap_or(value).trim();
        if value.is_empty() {
            return Ok(config);
        }
        for part in value.splitn(3, ';') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option {}", quote(part)))?;
            match key.trim() {
                "skip" => config.skip = Selection::parse(value),
                "experimental" => config.experimental = Selection::parse(value),
                "error" => {
                    config.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        value => {
                            let (part, value) = (quote(part), quote(value));
                            let reason = format!("strconv.ParseBool: parsing {value}: invalid syntax");
                            return Err(format!("failed to parse check option {part}: {reason}"));
                        }
                    };
                }
                key => return Err(format!("invalid check option {}", quote(key))),
            }
        }
        Ok(config)
    }

    /// Whether the rule is in force for an instruction with these comments above it: the first `check=` among them adds to
    /// the file's.
    pub(crate) fn applies(&self, rule: Rule, comments: &[String]) -> bool {
        let own = comments.iter().find_map(|comment| crate::directive::check_comment(comment));
        let own = own.and_then(|value| Self::parse(value).ok()).unwrap_or_default();
        if rule.experimental() {
            return self.experimental.has(rule) || own.experimental.has(rule);
        }
        !self.skip.has(rule) && !own.skip.has(rule)
    }
}
