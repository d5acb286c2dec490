"""Small, wrong changes of the code, and the test that notices each.

    .venvs/tf1/bin/python tests/mutants.py [WORD...]

applies each to a copy of the repository, runs the test that is named beside it
and expects a failure; with words, those whose name holds one of them. The
tests hold wherever they run, so none of them may be the bound of a processor
that was not recorded. tests/test_mutants.py holds the list against the code.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Mutant(NamedTuple):
  """One wrong change."""
  name: str
  # File, the text in it (found once), and what takes its place.
  path: str
  text: str
  replacement: str
  # Test file and a word of pytest's -k.
  test: str
  word: str


MUTANTS = (
    # Survivors of an earlier review.
    Mutant('initial spread of logits', 'deeplab/nets/deeplab_v3.py',
           '_LOGITS_STDDEV = 0.01', '_LOGITS_STDDEV = 0.02',
           'test_training.py', 'initial_values'),
    Mutant('initial spread of separable depthwise', 'deeplab/nets/layers.py',
           'stddev=0.33', 'stddev=0.3', 'test_training.py', 'initial_values'),
    Mutant('initial spread of separable pointwise', 'deeplab/nets/layers.py',
           'stddev=0.06', 'stddev=0.05', 'test_training.py', 'initial_values'),
    Mutant('logits averaged over scales', 'deeplab/nets/deeplab_v3.py',
           'probabilities.append(tf.nn.softmax(outputs))',
           'probabilities.append(outputs)', 'test_network.py',
           'averaged_over_scales'),
    Mutant('padding without taking mid-grey off', 'deeplab/data/preprocess.py',
           """  image = (tf.pad(image - contract.PADDING_VALUE, paddings) +
           contract.PADDING_VALUE)""",
           """  image = tf.pad(image, paddings,
                 constant_values=contract.PADDING_VALUE)""",
           'test_preprocess.py', 'padding_rounds'),
    Mutant('TFLite pixels scaled as the graph does', 'deeplab/contract.py',
           'return images / 127.5 - 1.0', 'return images * (2 / 255.0) - 1.0',
           'test_contract.py', 'tflite_scripts_divide'),
    Mutant('biases not doubled', 'deeplab/schedules.py',
           "2.0 if 'biases' in name", "1.0 if 'biases' in name",
           'test_training.py', 'update_follows'),
    # Ten of what would change a number quietly.
    Mutant('ignored label counts in the loss', 'deeplab/losses.py',
           'tf.not_equal(part_labels, contract.IGNORE_LABEL)',
           'tf.not_equal(part_labels, -1)', 'test_training.py',
           'ignored_pixels'),
    Mutant('loss without aligned corners', 'deeplab/losses.py',
           'size, align_corners=True)', 'size, align_corners=False)',
           'test_network.py', 'outputs_and_gradients'),
    Mutant('fused loss without the weights of pixels', 'deeplab/losses.py',
           '(probabilities - one_hot) * weights[:, tf.newaxis]',
           '(probabilities - one_hot)', 'test_fused_step.py', 'loss'),
    Mutant('fused loss that nothing above it scales', 'deeplab/losses.py',
           'return upstream * tf.raw_ops', 'return tf.raw_ops',
           'test_fused_step.py', 'gradient_are_the_same'),
    Mutant('fused loss of all but 0 probabilities', 'deeplab/losses.py',
           'lambda: _of_pixels(resized, labels))',
           'lambda: -tf.log(of_label))', 'test_fused_step.py',
           'no_probability'),
    Mutant('folded batch norm without the mean', 'deeplab/nets/batch_norm.py',
           "variables['moving_mean'] * factor", '0 * factor',
           'test_fused_step.py', 'folded_batch_norm'),
    Mutant('epochs in one order', 'deeplab/data/dataset.py',
           'tf.stack([tf.constant(seed, tf.int64), number])',
           'tf.stack([tf.constant(seed, tf.int64), 0 * number])',
           'test_dataset.py', 'epoch'),
    Mutant('a resumed run that begins the data anew', 'deeplab/training.py',
           'first_step if goes_on else 0', '0', 'test_resume.py',
           'interrupted'),
    Mutant('hosts that count pixels on their own', 'deeplab/training.py',
           'losses.mean(sums, lambda count: split.over_hosts([count], '
           '_COUNT_EXCHANGE)[0])', 'losses.mean(sums)', 'test_batch_parts.py',
           'whole_batch_does'),
    Mutant('the same dropout in all parts', 'deeplab/nets/batch_parts.py',
           'draws[self._number * images:(self._number + 1) * images]',
           'draws[:images]', 'test_batch_parts.py', 'dropout_draws'),
    Mutant('hosts that read the same records', 'deeplab/data/dataset.py',
           'tf.equal(index // batch_size % shares, which)',
           'tf.equal(index // batch_size % shares, 0)', 'test_cluster.py',
           'share_the_batches'),
    Mutant('a system that answers for a task', 'deeplab/watch.py',
           "return None if connection.recv(1) else ConnectionAbortedError("
           "'silent')", 'return None', 'test_cluster.py', 'silence_is_a_loss'),
    Mutant('a newest checkpoint that no one reads', 'deeplab/checkpoints.py',
           'damage = self._damage(name)', 'damage = None',
           'test_checkpoints.py', 'gives_way'),
    Mutant('weights of any kind are saved', 'deeplab/saving.py',
           'problem = checkpoints.not_finite_in(written)', 'problem = None',
           'test_training.py', 'not_finite_are_not_saved'),
    Mutant('shards are not held against their description',
           'deeplab/data/splits.py',
           'scans = _compared(scans, shard_set.description)', 'pass',
           'test_splits.py', 'cut_between'),
    Mutant('a build that leaves no marker', 'deeplab/data/records.py',
           '        _mark(markers)\n', '', 'test_publishing.py',
           'killed_at_any_change'),
    Mutant('shards of parts that are not looked at again',
           'deeplab/data/records.py',
           '      files.sha256_of(source) != shard.sha256):',
           '      not source):', 'test_shared_folders.py', 'is_lost'),
    Mutant('parts of any evaluation are added up', 'deeplab/merging.py',
           '    if differing:\n', '    if not first:\n',
           'test_work_in_parts.py', 'another_evaluation'),
    Mutant('images of two parts are counted twice', 'deeplab/merging.py',
           '    if begin != done:\n', '    if begin > done:\n',
           'test_work_in_parts.py', 'images_in_two_parts'),
    Mutant('parts that cut batches', 'deeplab/data/dataset.py',
           'part.bounds(count))', 'part.bounds(count - 1))',
           'test_work_in_parts.py', 'sum_of_parts'),
    Mutant('a part that completes a folder alone',
           'deeplab/data/png_folder_writer.py',
           '  if len(found) < part.of and os.path.exists(_marker(folder)):\n',
           '  if not found:\n',
           'test_shared_folders.py', 'images_of_all_parts'),
    Mutant('files of live runs are removed', 'deeplab/files.py',
           '      with locks.exclusive(os.path.join(path, _LOCK)):\n',
           '      with contextlib.suppress():\n', 'test_files.py',
           'a_live_run'),
    Mutant('a checkpoint that was evaluated is evaluated again',
           'deeplab/evaluation.py', 'if circumstances and not again:',
           'if circumstances and again:', 'test_evaluation.py',
           'is_given_again'),
    Mutant('padding value', 'deeplab/contract.py', 'PADDING_VALUE = 127.5',
           'PADDING_VALUE = 127.0', 'test_preprocess.py', 'padding'),
    Mutant('decay of the backbone', 'deeplab/nets/mobilenet_v2.py',
           '0.997', '0.999', 'test_training.py', 'moving_averages_follow'),
    Mutant('class 0 left out of the mean', 'deeplab/metrics.py',
           'miou=_mean(iou)', 'miou=_mean(iou[1:])', 'test_metrics.py',
           'moves_the_headline'),
    Mutant('resized sides rounded to the nearest', 'deeplab/data/preprocess.py',
           'tf.cast(tf.floor(sides * scale), tf.int32)',
           'tf.cast(tf.round(sides * scale), tf.int32)', 'test_preprocess.py',
           'resized_size'),
    Mutant('dropout keeps 0.8', 'deeplab/nets/aspp.py',
           '_DROPOUT_KEEP_PROBABILITY = 0.9', '_DROPOUT_KEEP_PROBABILITY = 0.8',
           'test_training.py', 'three_steps'),
    Mutant('batch norm is frozen a step late', 'deeplab/nets/fake_quant.py',
           """        _training_step() >= fake_quant.delay_step,
        lambda: (tf.ones_like""",
           """        _training_step() > fake_quant.delay_step,
        lambda: (tf.ones_like""",
           'test_quantize.py', 'steps_of_the_reference'),
    Mutant('multiplier leaves ASPP out', 'deeplab/contract.py',
           'LOGITS_SCOPE, IMAGE_POOLING_SCOPE, ASPP_SCOPE, CONCAT',
           'LOGITS_SCOPE, IMAGE_POOLING_SCOPE, CONCAT', 'test_training.py',
           'update_follows'),
    Mutant('momentum with Nesterov', 'deeplab/training.py',
           'learning_rate, options.momentum)',
           'learning_rate, options.momentum, use_nesterov=True)',
           'test_training.py', 'update_follows'),
    # Neighbours of these.
    Mutant('Adam follows the policy', 'deeplab/training.py',
           'options.adam_learning_rate, epsilon',
           'learning_rate, epsilon', 'test_training.py', 'update_follows'),
    Mutant('depthwise weights are regularized', 'deeplab/nets/layers.py',
           """        'depthwise_weights', [3, 3, channels(inputs), 1],
""",
           """        'depthwise_weights', [3, 3, channels(inputs), 1],
        regularizer=slim.l2_regularizer(style.weight_decay),
""",
           'test_network.py', 'regularized_weights'),
    Mutant('decay after the backbone', 'deeplab/options.py',
           "0.9997, 'Decay of the moving", "0.999, 'Decay of the moving",
           'test_training.py', 'moving_averages_follow'),
    Mutant('batch norm epsilon', 'deeplab/nets/deeplab_v3.py',
           '_BATCH_NORM_EPSILON = 1e-5', '_BATCH_NORM_EPSILON = 1e-3',
           'test_network.py', 'outputs_and_gradients'),
    Mutant('ranges follow faster', 'deeplab/nets/fake_quant.py',
           '_RANGE_DECAY = 0.999', '_RANGE_DECAY = 0.99', 'test_quantize.py',
           'steps_of_the_reference'),
    Mutant('weights rounded in the wide range', 'deeplab/nets/fake_quant.py',
           'num_bits=_BITS, narrow_range=is_narrow', 'num_bits=_BITS',
           'test_quantize.py', 'steps_of_the_reference'),
    Mutant('predictions with aligned corners', 'deeplab/nets/deeplab_v3.py',
           'resized = layers.resize_bilinear(class_logits, options.crop_size)',
           'resized = layers.resize_bilinear(\n'
           '        class_logits, options.crop_size, align_corners=True)',
           'test_network.py', 'predictions_align'),
    Mutant('labels resized without aligned corners',
           'deeplab/data/preprocess.py',
           'tf.expand_dims(label, 0), size, align_corners=True)',
           'tf.expand_dims(label, 0), size)', 'test_preprocess.py',
           'scaling_resizes'),
    # Own classes, and exports.
    Mutant('map: ids that are not listed are a class', 'deeplab/label_map.py',
           'classes = [contract.IGNORE_LABEL] * NUM_IDS',
           'classes = [1] * NUM_IDS', 'test_label_map.py', 'every_id_has'),
    Mutant('map: ids are taken for classes', 'deeplab/data/preprocess.py',
           'tf.gather(tf.constant(label_map.table, tf.int32), label)', 'label',
           'test_label_map.py', 'ids_become_classes'),
    Mutant('map: any checkpoint will do', 'deeplab/checkpoints.py',
           'label_maps.difference(trained.classes, given.classes)', 'None',
           'test_label_map.py', 'a_checkpoint_is_of'),
    Mutant('map: annotations may hold more', 'deeplab/data/png_folder.py',
           'if label_map == label_maps.ADE20K else last)', ')',
           'test_label_map.py', 'annotations_hold'),
    Mutant('map: of a description of another file', 'deeplab/descriptions.py',
           """checksums.get(
      name) != sha1(""", """checksums.get(
      name) == sha1(""", 'test_label_map.py', 'description_is_of'),
    Mutant('a SavedModel that is not checked', 'deeplab/saved_model_file.py',
           'graph_file.checked(path, found[0].graph_def)',
           'found[0].graph_def', 'test_exports.py', 'that_are_not_safe'),
    Mutant('a folder that is lost between two', 'deeplab/files.py',
           'os.replace(former, path)\n    raise', 'raise', 'test_exports.py',
           'whole_or_not'),
)


def survives(mutant):
  """Runs a mutant's test on a copy of the repository; returns its output.

  Returns:
    None where the test failed, as it should; else what pytest printed.
  """
  with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, 'copy')
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(
        '.git', '.venvs', '__pycache__', 'demo_output', 'ADE20K'))
    path = os.path.join(copy, mutant.path)
    with open(path, encoding='utf-8') as source:
      text = source.read()
    with open(path, 'w', encoding='utf-8') as changed:
      changed.write(text.replace(mutant.text, mutant.replacement))
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-x', '-k', mutant.word,
         os.path.join('tests', mutant.test)], cwd=copy,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)
    # 1: a test failed; anything else is no answer.
    return None if done.returncode == 1 else done.stdout


def main(words):
  """Tries the mutants; returns the exit status."""
  survivors = 0
  for mutant in MUTANTS:
    if words and not any(word in mutant.name for word in words):
      continue
    output = survives(mutant)
    survivors += output is not None
    print('{:8} {}: {} -k {}'.format(
        'SURVIVES' if output else 'killed', mutant.name, mutant.test,
        mutant.word), flush=True)
    if output:
      print(output)
  return bool(survivors)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
