#!/usr/bin/env bash
# Wraps a program that knows nothing of growpoint: its flags, its log, its checkpoints.
# Trains in pieces, and keeps the newest whole one in GROWPOINT_WORK: that is how it resumes.
set -euo pipefail
trainer=$1 python=$2

# Asked to stop: the piece that runs is given up, the one before is there.
trap 'exit 75' TERM

setting() {
  "$python" -c 'import json, os, sys
print(json.loads(os.environ["GROWPOINT_SETTINGS"]).get(*sys.argv[1:]))' "$@"
}
# The first token file of the training half: where it lies, and which part of it.
read -r file dtype offset count < <("$python" -c '
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
part = json.loads((folder / "corpus.json").read_text())["train"]["parts"][0]
print(folder / part["path"], part["dtype"], part["offset"], part["tokens"])' "$GROWPOINT_CORPUS")

batch_tokens=$((GROWPOINT_BATCH_SEQUENCES * GROWPOINT_SEQUENCE_TOKENS))
steps=$((GROWPOINT_TOKENS / batch_tokens))
piece=$(setting steps_in_a_piece 100)
backward=(); [ "$GROWPOINT_STREAM" = backward ] && backward=(--backward)

at=$(cat "$GROWPOINT_WORK/step" 2>/dev/null || echo 0)
while [ "$at" -lt "$steps" ]; do
  from=$GROWPOINT_SOURCE; [ "$at" -gt 0 ] && from=$GROWPOINT_WORK/$at
  next=$((at + piece < steps ? at + piece : steps))
  # In the background and waited for: a shell hears signals while it waits, and not while it runs.
  "$python" "$trainer" --init "$from" --save "$GROWPOINT_WORK/$next" \
    --tokens-file "$file" --dtype "$dtype" --offset "$offset" --count "$count" "${backward[@]}" \
    --batch "$GROWPOINT_BATCH_SEQUENCES" --length "$GROWPOINT_SEQUENCE_TOKENS" \
    --first-step "$at" --last-step "$next" --lr "$GROWPOINT_LR" |
    awk -v each="$batch_tokens" '
      /^step/ { printf "{\"tokens\": %d, \"loss\": %s}\n", $2 * each, $4; fflush() }' \
      >> "$GROWPOINT_METRICS" &
  wait $!
  echo "$next" > "$GROWPOINT_WORK/step.new" && mv "$GROWPOINT_WORK/step.new" "$GROWPOINT_WORK/step"
  [ "$at" -gt 0 ] && rm -r "${GROWPOINT_WORK:?}/$at"
  at=$next
done
cp "$GROWPOINT_WORK/$at"/* "$GROWPOINT_TARGET"
