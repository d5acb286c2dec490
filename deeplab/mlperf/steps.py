"""The steps that reproduce the published numbers: commands of the suite."""
import os
from typing import List, NamedTuple

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.data import download
from deeplab.data import pairs as pairs_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import published
from deeplab.storage import checked_read
from deeplab.system import environment

# Environments: for networks, for TFLite, or none.
NETWORK, TFLITE, SHELL = 'network', 'tflite', 'shell'
ENVIRONMENTS = {
    options_lib.TENSORFLOW_1_2: {NETWORK: 'tf1', TFLITE: 'tf2'},
    options_lib.MODERN: {NETWORK: 'modern', TFLITE: 'modern'}}
# Names of models and forms, by the folders and endings of published files.
MODELS = {'float': 'Float',
          'quantize_aware_training': 'Quantization-aware training',
          'post_train_quant': 'Post-training quantization'}
CHECKPOINT, GRAPH, LITE = '.index', '.pb', '.tflite'
FORMS = {CHECKPOINT: 'checkpoint', GRAPH: 'frozen graph', LITE: 'TFLite'}
# The evaluated file was published, or made here from the published checkpoint.
PUBLISHED, MADE = 'published', 'made here'

_SIZE = (' --eval_crop_size=512,512 --min_resize_value=512'
         ' --max_resize_value=512')
_RECORDS = ' --dataset_dir=tfrecord --resize_factor=16' + _SIZE
_STRIDES = ' --output_stride=16 --decoder_output_stride=4'
_PREPROCESS = ('gen_preprocessed_data.py --dataset_dir=tfrecord --overwrite' +
               _SIZE)
_EXPORT = ('export_model.py --num_classes=32 --train_crop_size=512,512' +
           _STRIDES)
_QAT = 'quantize_aware_training/'
# Name, environment, command, output. Steps run in the output folder.
_DOWNLOADS = (
    ('published files', SHELL,
     'scripts/fetch_checkpoints.sh --output_dir={published}', '{published}'),
    ('ADE20K', SHELL, 'download_and_convert_ade20k.sh --download_only {zip}',
     '{data}'))
_STEPS = (
    ('records', NETWORK,
     'build_ade20k_data.py --train_image_folder={data}/images/training'
     ' --train_image_label_folder={data}/annotations/training'
     ' --val_image_folder={data}/images/validation'
     ' --val_image_label_folder={data}/annotations/validation'
     ' --output_dir=tfrecord', 'tfrecord'),
    ('preprocess val', NETWORK, _PREPROCESS + ' --eval_split=val'
     ' --preprocessed_dataset_dir=preprocessed/val', 'preprocessed/val'),
    ('preprocess train', NETWORK, _PREPROCESS + ' --eval_split=train'
     ' --preprocessed_dataset_dir=preprocessed/train {image_list}',
     'preprocessed/train'),
    ('export: Float', NETWORK, _EXPORT +
     ' --checkpoint_path={published}/float/model.ckpt-200000'
     ' --export_path=made/float/freeze.pb', 'made/float/freeze.pb'),
    ('convert: Float', NETWORK,
     'scripts/convert_tflite.py --mode=float --graph_def=made/float/freeze.pb'
     ' --out_tflite=made/float/freeze.tflite', 'made/float/freeze.tflite'),
    ('export: Quantization-aware training', NETWORK, _EXPORT +
     ' --checkpoint_path={published}/' + _QAT + 'model.ckpt-100000'
     ' --quantize_delay_step=0 --export_path=made/' + _QAT + 'freeze.pb',
     'made/' + _QAT + 'freeze.pb'),
    ('convert: Quantization-aware training', NETWORK,
     'scripts/convert_tflite.py --mode=qat'
     ' --graph_def=made/' + _QAT + 'freeze.pb'
     ' --out_tflite=made/' + _QAT + 'freeze_qat.tflite',
     'made/' + _QAT + 'freeze_qat.tflite'),
    ('quantize after training', TFLITE,
     'post_training_quant.py --dataset_dir=preprocessed/train'
     ' --graph_def=made/float/freeze.pb --input_type=uint8'
     ' --sample_num={sample_num}'
     ' --out_tflite=made/post_train_quant/freeze_ptq.tflite',
     'made/post_train_quant/freeze_ptq.tflite'))
# Environment and command for each form.
_EVALUATIONS = {
    CHECKPOINT: (NETWORK, 'eval.py --checkpoint_dir={model}' + _STRIDES +
                 _RECORDS),
    GRAPH: (NETWORK, 'eval_pb.py --pb={model}' + _RECORDS),
    LITE: (TFLITE, 'segmentation_inference_eval_seg_tflite.py'
           ' --net_file={model} --test_dir=preprocessed/val')}


class Step(NamedTuple):
  """A command of the suite; paths are relative to the output folder."""
  name: str
  # NETWORK, TFLITE or SHELL.
  role: str
  # A script and its arguments.
  command: List[str]
  output: str
  # For an evaluation: key of published.FIGURES, model, PUBLISHED or MADE.
  figure: str = ''
  model: str = ''
  whose: str = ''


def make(options: options_lib.ReproduceOptions) -> List[Step]:
  """Returns the steps of a run.

  Raises:
    InputError: the sample or the zip file is missing.
  """
  values = {
      'published': published_folder(options),
      'data': os.path.abspath(options.sample) if options.sample
              else os.path.join(download.ADE20K, download.DATA),
      'zip': '', 'image_list': '', 'sample_num': constants.CALIBRATION_IMAGES}
  if options.zip:
    checked_read.check(options.zip, option('zip', options.zip),
                       'a copy of ADEChallengeData2016.zip')
    values['zip'] = '--zip=' + os.path.abspath(options.zip)
  there, downloads = list(published.FIGURES), list(_DOWNLOADS)
  if options.sample:
    del downloads[1:]
    values['sample_num'] = min(
        constants.CALIBRATION_IMAGES, count(options.sample, 'training'))
  else:
    values['image_list'] = '--image_list=' + os.path.join(
        environment.REPOSITORY, 'checkpoints', 'post_train_quant', 'ptq.txt')
  if options.sample and options.published:
    downloads = []
    # The checkpoints are needed; graphs and TFLite files may be missing.
    there = [figure for figure in there if figure.endswith(CHECKPOINT) or
             os.path.isfile(os.path.join(options.published, figure))]
  return ([_step(row, values) for row in downloads + list(_STEPS)] +
          [_evaluation(figure, PUBLISHED, values) for figure in there] +
          [_evaluation(figure, MADE, values) for figure in published.FIGURES
           if not figure.endswith(CHECKPOINT)])


def published_folder(options: options_lib.ReproduceOptions) -> str:
  """Returns the folder of the published files, for `Step`."""
  return os.path.abspath(options.published) if options.published else (
      'checkpoints')


def count(sample: str, split: str) -> int:
  """Returns the number of images of a split of the sample."""
  folder = os.path.join(sample, 'images', split)
  found = sum(map(pairs_lib.has_image_name, os.listdir(folder))) if (
      os.path.isdir(folder)) else 0
  if not found:
    raise InputError(
        '{}: no image in {}; expected images/ and annotations/, with training/ '
        'and validation/ in each', option('sample', sample),
        os.path.join('images', split))
  return found


def _step(row, values, **evaluated):
  """Builds a Step from a row and the values for its braces."""
  name, role, command, output = row
  # Words are split first because paths may have blanks.
  words = [word.format(**values) for word in command.split()]
  return Step(name, role, [word for word in words if word],
              output.format(**values), **evaluated)


def _evaluation(figure, whose, values):
  path, form = os.path.splitext(figure)
  path += form.replace(CHECKPOINT, '')
  role, command = _EVALUATIONS[form]
  if figure.startswith(_QAT) and form == CHECKPOINT:
    command += ' --quantize_delay_step=0'
  model = os.path.join(
      values['published'] if whose == PUBLISHED else 'made', path)
  report = 'reports/{}_{}.json'.format(
      whose.replace(' ', '_'), path.replace('/', '_'))
  name = 'evaluate, {}: {} {}'.format(
      whose, MODELS[os.path.dirname(path)], FORMS[form])
  return _step(
      (name, role, command + ' --report_json=' + report, report),
      dict(values, model=model), figure=figure, model=model, whose=whose)
