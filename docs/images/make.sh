#!/usr/bin/env bash
# Makes the pictures of README and docs/ again, from what ./scripts/demo.sh left:
# painted scenes, and the models that it trained on them.
#
#   ./docs/images/make.sh [DEMO_OUTPUT]
#
# Needs .venvs/modern and Chromium (apt-get install chromium).
set -euo pipefail

demo=$(realpath "${1:-demo_output}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
repository=$PWD
python=$repository/.venvs/modern/bin/python
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

"$python" eval.py \
  --checkpoint_dir="$demo/fine_tune" --dataset_dir="$demo/tfrecord" \
  --eval_crop_size=129,129 --min_resize_value=129 --max_resize_value=129 \
  --resize_factor=16 --output_stride=16 --decoder_output_stride=4 \
  --max_number_of_evaluations=1 --vis_dir="$made" --vis_images=2

# The page shows the paths of its inputs.
cd "$demo"
"$python" "$repository/scripts/compare_models.py" \
  --model=float=tflite/freeze.tflite --model=ptq=tflite/freeze_ptq.tflite \
  --model=qat=tflite/freeze_qat.tflite --output_dir="$made/page" \
  --preprocessed_dataset_dir=preprocessed
"$python" "$repository/scripts/visualize.py" --model=tflite/freeze_qat.tflite \
  --pictures=ADEChallengeData2016/images/validation/ADE_val_00000002.jpg \
  --output_dir="$made"
chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars \
  --user-data-dir="$made/profile" --window-size=1100,700 \
  --screenshot="$made/comparison.png" "file://$made/page/index.html" \
  2>"$made/chromium.log"

mv "$made"/*.overlay.png "$made/overlay.png"
"$python" - "$made" "$repository/docs/images" <<'PYTHON'
import sys
from PIL import Image
for name in ('predictions.png', 'comparison.png', 'overlay.png'):
  with Image.open('{}/{}'.format(sys.argv[1], name)) as picture:
    picture.convert('RGB').quantize(method=Image.FASTOCTREE).save(
        '{}/{}'.format(sys.argv[2], name), optimize=True)
PYTHON
