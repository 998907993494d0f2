// edgekit: load a bundle, verify it, predict. Header-only C++17; needs the library of ONNX Runtime, and none of its
// headers.
//
//   auto model = edgekit::Model::load("resnet20.edgekit");
//   if (!model) { std::puts(model.error().text().c_str()); return 4; }
//   auto answer = model->predict(edgekit::ImageView{height, width, 3, pixels});
//   if (answer) std::puts(answer->predictions[0].label.c_str());
#pragma once

#include "answers.hpp"
#include "environment.hpp"
#include "error.hpp"
#include "model.hpp"
#include "runtime.hpp"
#include "tensor.hpp"
