/** What each shell evaluates. The program is asked as it was called; files are the shell's own business. */
export const SCRIPTS = {
  bash: `_mesh() {
  local IFS=$'\\n'
  COMPREPLY=($("$1" __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f 1))
}
complete -o default -F _mesh mesh
`,
  zsh: `#compdef mesh
_mesh() {
  local line
  local -a found
  for line in "\${(@f)$("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -n $line ]] && found+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done
  if (( $#found )); then _describe mesh found; else _files; fi
}
if [[ $funcstack[1] == _mesh ]]; then _mesh "$@"; else compdef _mesh mesh; fi
`,
  fish: `function __mesh_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found ($words[1] __complete -- $words[2..-1] 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c mesh -f -a '(__mesh_complete)'
`,
} as const;
