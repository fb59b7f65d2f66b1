# Completion of hull for fish: this as ~/.config/fish/completions/hull.fish.

function __hull_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l word (commandline -ct)
    set -l reply (hull __complete $words "$word" 2>/dev/null)
    test (count $reply) -gt 0; or return
    set -l more $reply[-1]
    set -e reply[-1]
    test (count $reply) -gt 0; and printf '%s\n' $reply
    string match -q '*files*' -- $more; and __fish_complete_path "$word"
    string match -q '*dirs*' -- $more; and __fish_complete_directories "$word"
end

complete -c hull -f -a '(__hull_complete)'
