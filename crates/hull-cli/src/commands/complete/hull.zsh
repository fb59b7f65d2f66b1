#compdef hull
# Completion of hull for zsh: this as _hull in a directory of $fpath, or '. <(hull completion zsh)'.

_hull() {
    local -a reply values texts space
    local line more
    reply=("${(@f)$(hull __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    (( $#reply )) || return 1
    more=$reply[-1]
    reply[-1]=()
    for line in $reply; do
        values+=("${line%%$'\t'*}")
        texts+=("${line/$'\t'/  -- }")
    done
    [[ $more == *nospace* ]] && space=(-S '')
    (( $#values )) && compadd $space -l -d texts -a values
    [[ $more == *files* ]] && _files
    [[ $more == *dirs* ]] && _files -/
    return 0
}

if [[ $funcstack[1] == _hull ]]; then
    _hull "$@"
else
    compdef _hull hull
fi
