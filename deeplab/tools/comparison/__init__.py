"""Several models on the same images: how far they agree.

samples      the images, with or without labels
counts       predictions of the models, counted image by image
statistics   scores, differences, and their intervals
drawing      pictures of single images, and of where models differ
charts       charts (needs matplotlib)
page         one HTML file with everything (needs Jinja2)
run          from options to a folder
"""
