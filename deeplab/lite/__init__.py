"""TFLite models: conversion, parsing and evaluation."""
