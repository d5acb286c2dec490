#!/usr/bin/env bash
# Shows the whole chain on a small painted data set: sets up, trains, evaluates,
# exports, quantizes, and compares the scores of every stage. It needs no data
# and no GPU.
#
#   ./scripts/demo.sh
#
# Hardware: 2 cores are enough; about 7 minutes, the first set-up included.
# Expected: mIoU rises from below 0.05 to above 0.6; the frozen graph has its
# checkpoint's score, the TFLite files about that.
#
# Environment variables:
#   DEMO_OUTPUT       folder for everything that is made; default: demo_output.
#                     A folder of an earlier demo is replaced.
#   DEMO_STEPS        steps of the first training; default: 200. Fine-tuning
#                     takes 40 % of that, quantization-aware training 5 %.
#   DEMO_ENVIRONMENT  reference: TensorFlow 1.15 and 2.2 run it; modern:
#                     TensorFlow 2.21 does. Default: reference if there is a
#                     Python for it, else modern.
# Exit status: 0 done; 2 bad input; else the status of the failed command.
set -euo pipefail

case "${DEMO_OUTPUT:-}" in
  '' | /*) ;;
  *) DEMO_OUTPUT=$PWD/$DEMO_OUTPUT ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly OUT=${DEMO_OUTPUT:-demo_output}
readonly STEPS=${DEMO_STEPS:-200}
readonly MARKER=$OUT/.deeplab_demo
readonly ENVIRONMENT=${DEMO_ENVIRONMENT:-}

readonly RECORDS=$OUT/tfrecord
readonly PRETRAINED=$OUT/train
readonly FINE_TUNED=$OUT/fine_tune
readonly EXPORTED=$OUT/export
readonly QAT=$OUT/quantize_aware
readonly QAT_EXPORTED=$OUT/quantize_aware_export
readonly CALIBRATION=$OUT/calibration
readonly PREPROCESSED=$OUT/preprocessed
readonly TFLITE=$OUT/tflite
readonly REPORTS=$OUT/reports
readonly PICTURES=$OUT/pictures

# The documented commands use 512; this is smaller because there is no GPU.
readonly SIDE=129
readonly PRETRAINING_SIDE=97
readonly SIZES=(--min_resize_value="$SIDE" --max_resize_value="$SIDE")
readonly GEOMETRY=("${SIZES[@]}" --resize_factor=16)
readonly NETWORK=(--output_stride=16 --decoder_output_stride=4)

# Arguments of stage_table.py: one report for each evaluation, in order.
reports=()

fail() {
  echo "ERROR demo.sh: $*" >&2
  exit 2
}

# --- Showing what happens --------------------------------------------------

# stage WORD...: a banner, with the time since the start.
stage() {
  printf '\n== %s  [%d:%02d]\n' "$*" $((SECONDS / 60)) $((SECONDS % 60))
}

# quote WORD: prints a word quoted for the shell.
quote() {
  if [[ $1 =~ [^A-Za-z0-9_./=,:+-] ]]; then
    printf "'%s'" "${1//\'/\'\\\'\'}"
  else
    printf '%s' "$1"
  fi
}

# show COMMAND [ARGUMENT...]: prints a command that can be copied.
show() {
  local word line=
  for word in "$@"; do
    case $word in
      --*) line+=" \\"$'\n'"    $(quote "$word")" ;;
      *) line+="${line:+ }$(quote "$word")" ;;
    esac
  done
  printf '%s\n\n' "$line"
}

# run COMMAND [ARGUMENT...]: prints and runs a command.
run() {
  show "$@"
  "$@"
}

# report NAME FILE: adds FILE to $REPORTS as the scores of a stage.
report() {
  reports+=(--report="$1=$REPORTS/$2")
}

# --- Stages ----------------------------------------------------------------

# Starts over, but only removes a folder that a demo made.
clean() {
  [[ ! -e $OUT || -e $MARKER ]] || [[ -d $OUT && -z $(ls -A "$OUT") ]] ||
    fail "DEMO_OUTPUT=$OUT: holds something else; give a new folder"
  rm -rf "$OUT"
  mkdir -p "$OUT" "$REPORTS" "$TFLITE"
  touch "$MARKER"
}

# Sets PYTHON, which runs the stages, and TFLITE_PYTHON, which quantizes after
# training and runs TFLite files.
set_up() {
  local names=(all) name ready=
  stage 'Environment'
  case $ENVIRONMENT in
    reference) names=(tf1 tf2) ;;
    modern) names=(modern) ;;
  esac
  for name in "${names[@]}"; do
    show ./scripts/setup.sh "$name"
    ready+=$(./scripts/setup.sh "$name")$'\n'
  done
  printf '%s' "$ready"
  if [[ $ready == *'.venvs/tf1 '*'.venvs/tf2 '* ]]; then
    PYTHON=.venvs/tf1/bin/python
    TFLITE_PYTHON=.venvs/tf2/bin/python
    return
  fi
  PYTHON=.venvs/modern/bin/python
  TFLITE_PYTHON=$PYTHON
  [[ $ENVIRONMENT == modern ]] ||
    echo 'no Python 3.7 or 3.6: every stage runs in .venvs/modern'
}

make_data() {
  local source=$OUT/ADEChallengeData2016
  stage 'Data: painted scenes in the layout of ADE20K'
  run "$PYTHON" scripts/make_synthetic_ade20k.py --output_dir="$OUT" \
    --train_images=200 --val_images=16 --size=240
  stage 'Data: TFRecords'
  run "$PYTHON" build_ade20k_data.py \
    --train_image_folder="$source/images/training" \
    --train_image_label_folder="$source/annotations/training" \
    --val_image_folder="$source/images/validation" \
    --val_image_label_folder="$source/annotations/validation" \
    --output_dir="$RECORDS"
}

# pretrain STEPS: trains from scratch to a step; a second call resumes.
pretrain() {
  run "$PYTHON" train.py \
    --dataset_dir="$RECORDS" --train_logdir="$PRETRAINED" \
    --training_number_of_steps="$1" \
    --train_crop_size="$PRETRAINING_SIDE,$PRETRAINING_SIDE" \
    --train_batch_size=8 --min_resize_value="$PRETRAINING_SIDE" \
    --max_resize_value="$PRETRAINING_SIDE" --resize_factor=16 \
    "${NETWORK[@]}" --optimizer=momentum --base_learning_rate=0.05 \
    --fine_tune_batch_norm=True --batch_norm_decay=0.99 --seed=1
}

# Fine-tunes like the documented float command: Adam, and batch norm in
# inference mode. After so few steps its moving averages are far from the batch
# statistics of training, and the weights adapt to them.
fine_tune() {
  run "$PYTHON" train.py \
    --dataset_dir="$RECORDS" --train_logdir="$FINE_TUNED" \
    --tf_initial_checkpoint="$PRETRAINED" \
    --training_number_of_steps="$FINE_TUNING_STEPS" \
    --train_crop_size="$SIDE,$SIDE" --train_batch_size=8 "${GEOMETRY[@]}" \
    "${NETWORK[@]}" --optimizer=adam --adam_learning_rate=0.0005 \
    --fine_tune_batch_norm=False --seed=1
}

# evaluate NAME FILE FOLDER [ARGUMENT...]: scores the newest checkpoint.
evaluate() {
  stage "Evaluation: $1"
  report "$1" "$2"
  run "$PYTHON" eval.py \
    --checkpoint_dir="$3" --dataset_dir="$RECORDS" \
    --eval_crop_size="$SIDE,$SIDE" "${GEOMETRY[@]}" "${NETWORK[@]}" \
    --max_number_of_evaluations=1 --report_json="$REPORTS/$2" "${@:4}"
}

train() {
  stage 'Training from scratch: one step, for a score to start from'
  pretrain 1
  evaluate 'checkpoint of step 1' start.json "$PRETRAINED"
  stage "Training from scratch: on to step $STEPS"
  pretrain "$STEPS"
  stage "Fine-tuning: larger crop, $FINE_TUNING_STEPS steps"
  fine_tune
  evaluate 'fine-tuned checkpoint' fine_tuned.json "$FINE_TUNED" \
    --vis_dir="$PICTURES"
}

# export_graph FOLDER CHECKPOINTS [ARGUMENT...]: writes FOLDER/freeze.pb.
export_graph() {
  run "$PYTHON" export_model.py \
    --checkpoint_path="$2" --export_path="$1" \
    --train_crop_size="$SIDE,$SIDE" "${GEOMETRY[@]}" "${NETWORK[@]}" "${@:3}"
}

freeze() {
  stage 'Export: frozen graph'
  export_graph "$EXPORTED" "$FINE_TUNED"
  stage 'Evaluation: frozen graph'
  report 'frozen graph' frozen_graph.json
  run "$PYTHON" eval_pb.py \
    --pb="$EXPORTED/freeze.pb" --dataset_dir="$RECORDS" \
    --eval_crop_size="$SIDE,$SIDE" "${GEOMETRY[@]}" \
    --report_json="$REPORTS/frozen_graph.json"
}

# preprocess SPLIT FOLDER: writes images for TFLite, resized as on a device.
preprocess() {
  stage "Images for TFLite: $1"
  run "$TFLITE_PYTHON" gen_preprocessed_data.py \
    --dataset_dir="$RECORDS" --eval_split="$1" \
    --preprocessed_dataset_dir="$2" --eval_crop_size="$SIDE,$SIDE" \
    "${SIZES[@]}"
}

# evaluate_tflite NAME FILE: scores $TFLITE/FILE.tflite.
evaluate_tflite() {
  stage "Evaluation: $1"
  report "$1" "$2.json"
  run "$TFLITE_PYTHON" segmentation_inference_eval_seg_tflite.py \
    --net_file="$TFLITE/$2.tflite" --test_dir="$PREPROCESSED/images" \
    --val_label_dir="$PREPROCESSED/annotations" \
    --report_json="$REPORTS/$2.json"
}

convert_float() {
  stage 'Conversion: float TFLite'
  run "$PYTHON" scripts/convert_tflite.py --mode=float \
    --graph_def="$EXPORTED/freeze.pb" --out_tflite="$TFLITE/freeze.tflite"
  evaluate_tflite 'float TFLite' freeze
}

quantize_after_training() {
  preprocess train "$CALIBRATION"
  stage 'Post-training quantization'
  run "$TFLITE_PYTHON" post_training_quant.py \
    --dataset_dir="$CALIBRATION" --graph_def="$EXPORTED/freeze.pb" \
    --out_tflite="$TFLITE/freeze_ptq.tflite" --input_type=uint8 \
    --sample_num=50
  evaluate_tflite 'post-training quantized TFLite' freeze_ptq
}

# A few steps from the float checkpoint let the ranges settle.
quantize_in_training() {
  local quantized=--quantize_delay_step=0
  stage "Quantization-aware training: $QAT_STEPS steps"
  run "$PYTHON" train.py \
    --dataset_dir="$RECORDS" --train_logdir="$QAT" \
    --tf_initial_checkpoint="$FINE_TUNED" \
    --training_number_of_steps="$QAT_STEPS" \
    --train_crop_size="$SIDE,$SIDE" --train_batch_size=8 "${GEOMETRY[@]}" \
    "${NETWORK[@]}" --base_learning_rate=0.0005 --fine_tune_batch_norm=True \
    "$quantized" --seed=1
  evaluate 'quantization-aware checkpoint' quantize_aware.json "$QAT" \
    "$quantized"
  stage 'Export and conversion: quantization-aware TFLite'
  export_graph "$QAT_EXPORTED" "$QAT" "$quantized"
  run "$PYTHON" scripts/convert_tflite.py --mode=qat \
    --graph_def="$QAT_EXPORTED/freeze.pb" \
    --out_tflite="$TFLITE/freeze_qat.tflite"
  evaluate_tflite 'quantization-aware TFLite' freeze_qat
}

summarize() {
  stage 'Scores by stage'
  run "$PYTHON" scripts/stage_table.py "${reports[@]}"
  printf '\npredictions beside labels: %s\n' "$PICTURES/predictions.png"
  printf 'TensorBoard: %s\n' \
    "${PYTHON%/python}/tensorboard --logdir=$OUT"
  printf 'done in %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
}

[[ $# -eq 0 ]] || fail "$*: expected no argument; see DEMO_OUTPUT, DEMO_STEPS"
case $ENVIRONMENT in
  '' | reference | modern) ;;
  *) fail "DEMO_ENVIRONMENT=$ENVIRONMENT: expected reference or modern" ;;
esac
[[ $STEPS =~ ^[1-9][0-9]*$ && $STEPS -ge 2 ]] ||
  fail "DEMO_STEPS=$STEPS: expected a whole number of at least 2"

# Fractions of it, rounded up.
readonly FINE_TUNING_STEPS=$(((STEPS * 2 + 4) / 5))
readonly QAT_STEPS=$(((STEPS + 19) / 20))

clean
set_up
make_data
train
freeze
preprocess val "$PREPROCESSED"
convert_float
quantize_after_training
quantize_in_training
summarize
