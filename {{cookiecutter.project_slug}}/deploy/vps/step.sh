# shellcheck shell=sh
# Sourced by build and activate: says what is waited for, and how long it took.
#   step WHAT COMMAND ...    STEP, STEPS: the number of the first one, and of all
step_number=${STEP:-1}

milliseconds() { echo "$(($(date +%s%N) / 1000000))"; }

# A connection that breaks shall not end what is half done: nobody may be there to read it.
say() {
  # shellcheck disable=SC2059
  printf "$@" 2>/dev/null || :
}

more_steps() { STEPS=$((step_number + $1 - 1)); }

step() {
  say '%s/%s %s ... ' "$step_number" "${STEPS:-?}" "$1"
  shift
  step_number=$((step_number + 1))
  step_began=$(milliseconds)
  step_code=0
  "$@" || step_code=$?
  step_took=$(($(milliseconds) - step_began))
  if [ "$step_code" -ne 0 ]; then say 'failed after '; fi
  say '%s.%s s\n' "$((step_took / 1000))" "$((step_took % 1000 / 100))"
  return "$step_code"
}
