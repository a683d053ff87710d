# own-lab.sh, for other scripts to source: a lab of their own, which goes down
# again whatever happens. In the repository's root, with bin/lab built.
own_lab_log=$(mktemp)
if bin/lab status >"$own_lab_log" 2>&1; then
  echo "$(basename "$0" .sh): a lab is up already, and this would take it down: make lab-down first" >&2
  rm -f "$own_lab_log"
  exit 1
fi
own_lab_down() {
  code=$?
  # Quiet when all is well, so that what ran in it has the last word.
  if ! bin/lab down >"$own_lab_log" 2>&1; then
    cat "$own_lab_log" >&2
    echo "FAIL: the lab did not go down cleanly" >&2
    code=1
  fi
  rm -f "$own_lab_log"
  exit "$code"
}
trap own_lab_down EXIT
bin/lab up
