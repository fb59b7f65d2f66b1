# Completion of hull for bash: '. <(hull completion bash)', or this as /etc/bash_completion.d/hull.
# With 'alias docker=hull': complete -F _hull docker

_hull() {
    local line=${COMP_LINE:0:COMP_POINT} tab=$'\t'
    local -a words reply
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word=${words[${#words[@]} - 1]}
    mapfile -t reply < <(hull __complete "${words[@]:1}" 2>/dev/null)
    COMPREPLY=()
    ((${#reply[@]})) || return 0
    local more=${reply[${#reply[@]} - 1]}
    unset "reply[${#reply[@]} - 1]"
    # Bash cuts words at = and :, and replaces only what is behind the last one.
    local breaks=${COMP_WORDBREAKS//[^=:]/} head=""
    [[ -n $breaks ]] && head=${word%"${word##*["$breaks"]}"}
    local candidate
    for candidate in "${reply[@]}"; do
        candidate=${candidate%%"$tab"*}
        COMPREPLY+=("${candidate#"$head"}")
    done
    case $more in
    *files*) compopt -o default 2>/dev/null ;;
    *dirs*) compopt -o dirnames 2>/dev/null ;;
    esac
    [[ $more == *nospace* && ${#COMPREPLY[@]} -gt 0 ]] && compopt -o nospace 2>/dev/null
    return 0
}

complete -F _hull hull
