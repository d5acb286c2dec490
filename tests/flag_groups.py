"""Every script's flags, for tests of all of them."""
from deeplab.flag_sets import data as data_flags
from deeplab.flag_sets import mlperf as mlperf_flags
from deeplab.flag_sets import network as network_flags
from deeplab.flag_sets import seeing as seeing_flags
from deeplab.flag_sets import tflite as tflite_flags

# The functions that define a script's flags and make its options, and flags
# without which there are none.
GROUPS = {
    'build': (data_flags.define_build_flags, data_flags.build_options, []),
    'synthetic': (data_flags.define_synthetic_flags,
                  data_flags.synthetic_options, []),
    'preprocessed': (
        data_flags.define_preprocessed_flags, data_flags.preprocessed_options,
        ['--dataset_dir=d', '--preprocessed_dataset_dir=p']),
    'train': (network_flags.define_train_flags, network_flags.train_options,
              ['--train_logdir=l', '--dataset_dir=d']),
    'eval': (network_flags.define_eval_flags, network_flags.eval_options,
             ['--checkpoint_dir=c', '--dataset_dir=d']),
    'eval_pb': (network_flags.define_eval_pb_flags,
                network_flags.eval_pb_options, ['--pb=p', '--dataset_dir=d']),
    'export': (network_flags.define_export_flags, network_flags.export_options,
               ['--checkpoint_path=c', '--export_path=e']),
    'ptq': (tflite_flags.define_post_training_quant_flags,
            tflite_flags.post_training_quant_options,
            ['--graph_def=g', '--out_tflite=o', '--dataset_dir=d',
             '--input_type=uint8']),
    'convert': (tflite_flags.define_convert_tflite_flags,
                tflite_flags.convert_tflite_options,
                ['--graph_def=g', '--out_tflite=o', '--mode=qat']),
    'tflite_eval': (tflite_flags.define_tflite_eval_flags,
                    tflite_flags.tflite_eval_options, []),
    'loadgen': (mlperf_flags.define_loadgen_flags, mlperf_flags.loadgen_options,
                ['--model=m', '--output_dir=o']),
    'reproduce': (mlperf_flags.define_reproduce_flags,
                  mlperf_flags.reproduce_options, []),
    'score_log': (mlperf_flags.define_score_log_flags,
                  mlperf_flags.score_log_options, ['--accuracy_log=l']),
    'rebuild': (tflite_flags.define_rebuild_flags, tflite_flags.rebuild_options,
                ['--tflite=t', '--output_dir=o']),
    'stage_table': (tflite_flags.define_stage_table_flags, tflite_flags.stages,
                    ['--report=stage=file']),
    'visualize': (
        seeing_flags.define_visualize_flags, seeing_flags.visualize_options,
        ['--model=m', '--pictures=p', '--output_dir=o']),
    'compare': (
        seeing_flags.define_compare_flags, seeing_flags.compare_options,
        ['--model=a', '--model=b', '--pictures=p', '--output_dir=o']),
    'inspect': (
        seeing_flags.define_inspect_flags, seeing_flags.inspect_options,
        ['--model=m', '--calibration_dir=c']),
}
