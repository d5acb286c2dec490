"""DeepLabv3 + MobileNetV2 on ADE20K's 32 classes: the suite's library.

Data flows one way, and no module imports one that stands to its right:

    records -> dataset -> preprocess -> network -> predictions -> metrics

Importing this package runs nothing and reads no flags.
"""
