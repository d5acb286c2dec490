"""Small wrong changes of the code, each with the test that must fail.

    .venvs/tf1/bin/python tests/mutants.py [WORD...]

applies each change to a copy of the repository and runs the test named beside
it, which must fail. With words, only mutants whose code or test contains one of
them run. Code and tests are found by their text and name, so both may move to
another file. These tests must fail on every machine, so none of them may depend
on the bounds for processors that were not recorded.
"""
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Mutant(NamedTuple):
  """One wrong change."""
  # Code that occurs once in deeplab/, in any layout, and its replacement.
  code: str
  replacement: str
  # Name of the test that fails.
  test: str


MUTANTS = (
    # Initial logits are spread wider.
    Mutant('_LOGITS_STDDEV = 0.01', '_LOGITS_STDDEV = 0.02',
        'test_initial_values_have_the_expected_spread'),
    # Logits are averaged over scales, not probabilities.
    Mutant('probabilities.append(tf.nn.softmax(outputs))',
        'probabilities.append(outputs)',
        'test_probabilities_and_not_logits_are_averaged_over_scales'),
    # Padding does not subtract mid-grey first.
    Mutant(
        'image = (tf.pad(image - constants.PADDING_VALUE, paddings) + '
        'constants.PADDING_VALUE)',
        'image = tf.pad(image, paddings, '
        'constant_values=constants.PADDING_VALUE)',
        'test_padding_rounds_like_the_reference'),
    # TFLite pixels are rounded differently.
    Mutant('return (images - 127.5) / 127.5', 'return images / 127.5 - 1.0',
        'test_pixels_are_scaled_as_in_the_reference_tflite_scripts'),
    # Concatenations get the intersection of their inputs' ranges.
    Mutant('zip((min, max), zip(*ranges))', 'zip((max, min), zip(*ranges))',
        'test_concatenations_use_the_union_of_their_ranges'),
    # Concatenations get only the shared range.
    Mutant("(('own', own), ('union', union))", "(('union', union),)",
        'test_concatenations_use_the_union_of_their_ranges'),
    # Pixels with the ignore label count in the loss.
    Mutant('tf.not_equal(chunk_labels, constants.IGNORE_LABEL)',
        'tf.not_equal(chunk_labels, -1)', 'test_ignored_pixels_do_not_count'),
    # The loss resizes without aligned corners.
    Mutant('logits, size, align_corners=True)',
        'logits, size, align_corners=False)',
        'test_outputs_and_gradients_match_the_reference'),
    # The fused loss ignores pixel weights.
    Mutant('(probabilities - one_hot) * weights[:, tf.newaxis]',
        '(probabilities - one_hot)',
        'test_fused_loss_and_gradient_equal_the_plain_ones'),
    # Folded batch norm ignores the mean.
    Mutant("variables['moving_mean'] * factor", '0 * factor',
        'test_folded_batch_norm_gives_the_same_logits_and_gradients'),
    # All epochs have the same order.
    Mutant('tf.stack([tf.constant(seed, tf.int64), number])',
        'tf.stack([tf.constant(seed, tf.int64), 0 * number])',
        'test_each_epoch_has_every_record_once_in_a_new_order'),
    # A resumed run starts the data from the beginning.
    Mutant('preprocess_options, first_step, (host',
        'preprocess_options, 0, (host',
        'test_interrupted_equals_uninterrupted'),
    # All replicas drop the same values.
    Mutant('draws[self._number * images:(self._number + 1) * images]',
        'draws[:images]', 'test_replicas_share_the_dropout_of_the_whole_batch'),
    # All hosts read the same records.
    Mutant('tf.equal(index // batch_size % shares, which)',
        'tf.equal(index // batch_size % shares, 0)',
        'test_hosts_share_the_batches_of_a_single_run'),
    # A damaged checkpoint counts as the newest.
    Mutant('damage = self._damage(name)', 'damage = None',
        'test_a_damaged_newest_checkpoint_is_skipped'),
    # Weights that are not finite are saved.
    Mutant('problem = read.not_finite_in(written)', 'problem = None',
        'test_weights_that_are_not_finite_are_not_saved'),
    # Shards are not compared with their description.
    Mutant('(count, size) != (facts.records, facts.bytes)', 'False',
        'test_a_shard_cut_between_records_is_named'),
    # A build leaves no marker.
    Mutant('files.write_all(dict.fromkeys(markers, _UNFINISHED))', 'pass',
        'test_after_a_kill_readers_see_one_set_or_refuse'),
    # Shards of different evaluations are merged.
    Mutant('if differing:', 'if not given:',
        'test_shards_of_another_evaluation_are_refused'),
    # Images are counted in two shards.
    Mutant('index * items // of', 'index * items // of - 1',
        'test_shards_cover_all_items_and_differ_by_one'),
    # Temporary files of live runs are removed.
    Mutant('contextlib.suppress(OSError), exclusive(path):',
        'contextlib.suppress(OSError):',
        'test_a_live_run_of_the_same_target_keeps_its_files'),
    # The mean leaves out class 0.
    Mutant('miou=_mean(iou)', 'miou=_mean(iou[1:])', 'test_the_three_means'),
    # Resized sides are rounded to the nearest integer.
    Mutant('tf.cast(tf.floor(sides * scale), tf.int32)',
        'tf.cast(tf.round(sides * scale), tf.int32)', 'test_resized_size'),
    # Batch norm is frozen a step late.
    Mutant('_training_step() >= fake_quant.delay_step, lambda: (tf.ones_like',
        '_training_step() > fake_quant.delay_step, lambda: (tf.ones_like',
        'test_training_steps_match_the_reference_on_every_tensorflow'),
    # The learning rate multiplier leaves out ASPP.
    Mutant('IMAGE_POOLING_SCOPE, ASPP_SCOPE,', 'IMAGE_POOLING_SCOPE,',
        'test_each_update_matches_a_hand_computation'),
    # Depthwise weights are regularized.
    Mutant("'depthwise_weights', [3, 3, channels(inputs), 1],",
        "'depthwise_weights', [3, 3, channels(inputs), 1], "
        'regularizer=slim.l2_regularizer(style.weight_decay),',
        'test_variables_and_regularized_weights_match_the_published_ones'),
    # Weights are rounded in the wide range.
    Mutant('num_bits=_BITS, narrow_range=is_narrow', 'num_bits=_BITS',
        'test_training_steps_match_the_reference_on_every_tensorflow'),
    # Predictions are resized with aligned corners.
    Mutant('resized = layers.resize_bilinear(class_logits, options.crop_size)',
        'resized = layers.resize_bilinear( class_logits, options.crop_size, '
        'align_corners=True)',
        'test_predictions_are_resized_without_aligned_corners'),
    # Labels are resized without aligned corners.
    Mutant('tf.expand_dims(label, 0), size, align_corners=True)',
        'tf.expand_dims(label, 0), size)',
        'test_scaling_resizes_bilinearly_and_by_nearest_neighbour'),
    # Label map: ids that are not listed become class 1.
    Mutant('classes = [constants.IGNORE_LABEL] * NUM_IDS',
        'classes = [1] * NUM_IDS', 'test_every_id_has_a_class'),
    # Label map: the description of another file is used.
    Mutant('name_of(path)) != sha1(', 'name_of(path)) == sha1(',
        'test_a_description_belongs_to_the_file_with_its_checksum'),
    # SavedModels are not checked.
    Mutant(
        'frozen_graph.checked(path, found[0].graph_def)', 'found[0].graph_def',
        'test_unsafe_saved_models_are_refused'),
    # The old folder is lost if the second rename fails.
    Mutant('os.replace(former, path) raise', 'raise',
        'test_a_folder_is_replaced_atomically'),
    # Classes that only one model counts get no share of a difference.
    Mutant('counts * (iou - mean)', 'counts * iou',
        'test_a_finding_names_the_classes_behind_a_difference_of_miou'),
    # Predictions on padding are painted.
    Mutant('shown[:height, :width] = prediction[:height, :width]',
        'shown[:] = prediction',
        'test_image_label_and_prediction_are_side_by_side'),
)


@functools.lru_cache(maxsize=None)
def python_files(folder):
  """Returns (path, source) of the modules below a folder of the repository."""
  found = []
  for top, _, names in sorted(os.walk(os.path.join(REPOSITORY, folder))):
    for name in sorted(names):
      if name.endswith('.py'):
        path = os.path.join(top, name)
        with open(path, encoding='utf-8') as source:
          found.append((os.path.relpath(path, REPOSITORY), source.read()))
  return found


def places(mutant):
  """Returns (path, mutated source) for each place that a mutant fits."""
  pattern = re.compile(r'\s*'.join(
      map(re.escape, re.findall(r'\w+|\S', mutant.code))))
  return [(path, source[:match.start()] + mutant.replacement +
           source[match.end():])
          for path, source in python_files('deeplab')
          for match in pattern.finditer(source)]


def files_of_test(mutant):
  """Returns the paths of the files that define a mutant's test."""
  return [path for path, source in python_files('tests')
          if re.search(r'^ *def {}\('.format(mutant.test), source, re.M)]


def survives(mutant):
  """Runs a mutant's test on a copy of the repository; returns its output.

  Returns:
    None if the test failed, as it should; else what pytest printed.
  """
  (path, mutated), = places(mutant)
  with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, 'copy')
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(
        '.git', '.venvs', '__pycache__', 'demo_output', 'ADE20K'))
    with open(os.path.join(copy, path), 'w', encoding='utf-8') as changed:
      changed.write(mutated)
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-x', '-k', mutant.test] +
        files_of_test(mutant), cwd=copy, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, universal_newlines=True)
    # 1: a test failed; anything else is no answer.
    return None if done.returncode == 1 else done.stdout


def main(words):
  """Tries the mutants; returns the exit status."""
  survivors = 0
  for mutant in MUTANTS:
    if words and not any(
        word in mutant.code + ' ' + mutant.test for word in words):
      continue
    output = survives(mutant)
    survivors += output is not None
    print('{:8} {}: {}'.format('SURVIVES' if output else 'killed', mutant.code,
                               mutant.test), flush=True)
    if output:
      print(output)
  return bool(survivors)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
