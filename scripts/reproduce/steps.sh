# What these scripts share; for `source`, not to be run. A step that was interrupted is gone on with, or begun anew.

train() {  # FOLDER SETTINGS...: trains, or goes on
  if [ -f "$1/config.yaml" ]; then dp-train resume="$1"; else dp-train out="$1" "${@:2}"; fi
}

evaluate() {  # FOLDER SETTINGS...: evaluates unless FOLDER is there; what was interrupted is begun anew
  [ ! -e "$1" ] || return 0
  rm -rf "$1-unfinished"
  dp-eval out="$1-unfinished" "${@:2}" || return  # an interrupted one keeps what it has, and ends with an error
  mv "$1-unfinished" "$1"
}
