//! Architectures: their names in profiles and what the kernel calls them.

/// Marks a number as an x32 call; x32 otherwise looks like x86-64 to a filter.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

macro_rules! architectures {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An architecture that profiles can name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Arch {
            $($(#[$doc])* $variant,)*
        }

        impl Arch {
            /// Every architecture.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The `SCMP_ARCH_*` name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("SCMP_ARCH_", $name),)*
                }
            }
        }
    };
}

architectures! {
    /// 64-bit x86.
    X86_64 = "X86_64",
    /// 32-bit x86.
    X86 = "X86",
    /// x86-64 with 32-bit pointers.
    X32 = "X32",
    /// 64-bit ARM.
    Aarch64 = "AARCH64",
    /// 32-bit ARM, EABI.
    Arm = "ARM",
    /// MIPS, big endian.
    Mips = "MIPS",
    /// 64-bit MIPS, big endian.
    Mips64 = "MIPS64",
    /// MIPS N32, big endian.
    Mips64N32 = "MIPS64N32",
    /// MIPS, little endian.
    Mipsel = "MIPSEL",
    /// 64-bit MIPS, little endian.
    Mipsel64 = "MIPSEL64",
    /// MIPS N32, little endian.
    Mipsel64N32 = "MIPSEL64N32",
    /// 32-bit PowerPC.
    Ppc = "PPC",
    /// 64-bit PowerPC, big endian.
    Ppc64 = "PPC64",
    /// 64-bit PowerPC, little endian.
    Ppc64Le = "PPC64LE",
    /// 31-bit S/390.
    S390 = "S390",
    /// 64-bit S/390.
    S390X = "S390X",
    /// 32-bit PA-RISC.
    Parisc = "PARISC",
    /// 64-bit PA-RISC.
    Parisc64 = "PARISC64",
    /// 64-bit RISC-V.
    Riscv64 = "RISCV64",
    /// 64-bit LoongArch.
    Loongarch64 = "LOONGARCH64",
    /// Motorola 68000.
    M68k = "M68K",
    /// SuperH, little endian.
    Sh = "SH",
    /// SuperH, big endian.
    Sheb = "SHEB",
}

impl Arch {
    /// Finds an architecture by its `SCMP_ARCH_*` name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|arch| arch.name() == name)
    }

    /// The architecture whose Rust name is given (`target_arch`), when Hull has its table.
    #[must_use]
    pub fn from_target(target: &str) -> Option<Self> {
        match target {
            "x86_64" => Some(Self::X86_64),
            "x86" => Some(Self::X86),
            "aarch64" => Some(Self::Aarch64),
            "arm" => Some(Self::Arm),
            _ => None,
        }
    }

    /// What `seccomp_data.arch` holds, for architectures with a table (`linux/audit.h`).
    pub(crate) const fn audit(self) -> Option<u32> {
        match self {
            Self::X86_64 | Self::X32 => Some(0xc000_003e),
            Self::X86 => Some(0x4000_0003),
            Self::Aarch64 => Some(0xc000_00b7),
            Self::Arm => Some(0x4000_0028),
            _ => None,
        }
    }

    /// Whether a machine of architecture `native` can run calls of this one. Others never match, so no code is made.
    pub(crate) const fn runs_on(self, native: Self) -> bool {
        match native {
            Self::X86_64 => matches!(self, Self::X86_64 | Self::X86 | Self::X32),
            Self::Aarch64 => matches!(self, Self::Aarch64 | Self::Arm),
            Self::X86 => matches!(self, Self::X86),
            Self::Arm => matches!(self, Self::Arm),
            _ => false,
        }
    }

    /// Whether arguments have 32 bits, so that only the low half of a profile's value is compared. Calls of x32 pass
    /// whole registers.
    pub(crate) const fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }
}
