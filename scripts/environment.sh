# Sourced by the other scripts: makes .venv beside the project and installs the package into it.
# PYTHON chooses the interpreter (python3 by default); an existing .venv is reused and brought up to date.

fail() { echo "error: $*" >&2; exit 2; }

make_environment() {  # $1: extras, e.g. "[dev]" or ""; the rest goes to pip, e.g. --editable ./client
  local python="${PYTHON:-python3}"
  command -v "$python" >/dev/null || fail "no $python; install Python 3.11 or newer: sudo apt install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1); set PYTHON=python3.11 or newer"
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing: sudo apt install python3-venv"
    echo "making .venv with $("$python" -V)"
    "$python" -m venv .venv || fail "could not make .venv; is the disk full?"
  fi
  echo "installing (a few minutes the first time; torch is the large part)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    -c requirements/constraints.txt --editable ".$1" "${@:2}" || fail "installation failed; pip's message is above"
}
