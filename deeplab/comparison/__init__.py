"""Several models on the same images: how far they agree, and where they do not.

samples      the images, with or without labels
counts       what models say of them, counted image by image
statistics   scores, differences, and how far a sample of images can be trusted
drawing      pictures of single images, and of where models differ
charts       charts (needs matplotlib)
page         all of it as one HTML file
run          from options to a folder
"""
