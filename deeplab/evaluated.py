"""Which checkpoints were evaluated, with which options, and with what result.

Kept on disk in a folder of events, so that an evaluation that is started again
does not do again what is done; and in the report of a part, so that those of
one evaluation are known. What a checkpoint is decides its index, which has a
checksum of every variable; its name and folder do not.
"""
import hashlib
import os
from typing import Any, Dict, Mapping, Optional

from deeplab import any_model
from deeplab import checkpoints
from deeplab import files
from deeplab import inputs
from deeplab import label_map as label_maps
from deeplab import options as options_lib
from deeplab import parts
from deeplab import predictors
from deeplab import report as report_lib
from deeplab import storage
from deeplab.data import dataset
from deeplab.data import records
from deeplab.errors import InputError


def circumstances(
    prefix: str, *, model_options: options_lib.ModelOptions,
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    options: options_lib.EvalOptions) -> Dict[str, Any]:
  """Returns all that a report hangs on, as a dict that json can write.

  Args:
    prefix: checkpoint prefix.
    model_options: the structure of its network.
    dataset_options: which split.
    preprocess_options: what the images become first.
    options: what becomes of the scores.

  Raises:
    FileNotFoundError: the checkpoint is gone.
  """
  shards = records.find_shards(dataset_options.dataset_dir,
                               dataset_options.split)
  part = options.part
  return dict({
      'step': checkpoints.global_step_in(prefix),
      'data': options_lib.to_json(dataset_options),
      'shards': [[os.path.basename(path)] + list(storage.state(path)[1:])
                 for path in shards],
      'preprocessing': preprocess_options.to_json(),
      'pictures': [options.vis_dir, report_lib.samples_wanted(options)],
      'runtime': predictors.runtime(),
  }, **checkpoint(prefix, model_options), **{'part': part} if part else {})


def checkpoint(
    prefix: str, model_options: options_lib.ModelOptions) -> Dict[str, object]:
  """Returns what a checkpoint is, wherever it lies.

  Args:
    prefix: checkpoint prefix.
    model_options: the structure of its network.

  Raises:
    FileNotFoundError: the checkpoint is gone.
  """
  with storage.reading(prefix + '.index') as index:
    checksums = hashlib.sha1(index.read()).hexdigest()
  return {'checkpoint': checksums,
          'model': options_lib.to_json(model_options)}


def exported(
    model: any_model.ModelFile,
    graph_options: options_lib.GraphEvalOptions) -> Dict[str, object]:
  """Returns what an exported graph is, wherever it lies."""
  return {'graph': files.sha256_of(any_model.file_of(model)),
          'nodes': [graph_options.input_node, graph_options.output_node]}


def part_of(
    part: parts.Part, model: Mapping[str, object], batches: dataset.Batches, *,
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    runtime: str) -> report_lib.PartOf:
  """Returns what the report of a part says of it.

  Args:
    part: which it is.
    model: from `checkpoint` or `exported`.
    batches: of the part.
    dataset_options: what they were read with.
    preprocess_options: what the images become first.
    runtime: what computes the labels.
  """
  data = options_lib.to_json(dataset_options)
  # Of no effect on what the records say.
  for name in ('dataset_dir', 'seed', 'verify_records'):
    del data[name]
  # What is in the file counts, not where it lies.
  data['label_map'] = label_maps.json_entry(batches.label_map)
  return report_lib.PartOf(
      *part, first=batches.first_image, total=batches.total_images,
      evaluation=dict(
          model, records=batches.identity, data=data,
          preprocessing=preprocess_options.to_json(), runtime=runtime))


def recall(logdir: str, given: Dict[str, Any]) -> Optional[report_lib.Report]:
  """Returns the report that was kept for circumstances, or None.

  Args:
    logdir: the folder of events.
    given: see `circumstances`.
  """
  vis_dir = given['pictures'][0]
  if vis_dir and not os.path.exists(report_lib.picture_path(vis_dir)):
    return None
  try:
    path = _path(logdir, given)
    return report_lib.from_json(
        inputs.read_json(path, path, 'a report')['report'])
  except (OSError, KeyError, TypeError, InputError):
    # There is none, or none that can be used: it is made again.
    return None


def remember(logdir: str, given: Dict[str, Any],
             report: report_lib.Report) -> None:
  """Keeps a report; arguments as for `recall`."""
  files.write_json(_path(logdir, given), {
      'of': given, 'report': report_lib.to_json(report)})


def _path(logdir, given):
  identity = hashlib.sha1(files.json_bytes(given)).hexdigest()
  return os.path.join(logdir, 'evaluated-{}-{}.json'.format(
      given['step'], identity[:16]))
