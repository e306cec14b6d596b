// What the kernels work on. Tasks are numbered; a kernel runs a range of them.
#pragma once

#include <cstdint>
#include <limits>

#include "../operator.h"

namespace dcnv3::cpu {

// Rows of the input that the samples of one output row touch.
struct RowExtent {
  int32_t low = std::numeric_limits<int32_t>::max();
  int32_t high = -1;
};

template <typename scalar_t>
struct Tensors {
  Params p;
  const scalar_t* input;
  const scalar_t* offset;
  const scalar_t* mask;
  bool mask_is_logits;
};

// Tasks: output rows of all images.
template <typename scalar_t>
struct Forward {
  Tensors<scalar_t> t;
  scalar_t* output;
};

// Gradients of offset and mask, and the extents of the rows. Tasks: output rows of all images. Nothing is written
// twice.
template <typename scalar_t>
struct SamplingGradients {
  Tensors<scalar_t> t;
  const scalar_t* grad_output;
  scalar_t* grad_offset;  // null: only the extents are wanted
  scalar_t* grad_mask;
  RowExtent* extents;
};

// Gradient of the input. Tasks: bands of input rows, `bands` per image; a task visits the output rows that reach its
// band and adds only to rows of the band. Every element so receives its contributions in the order of the output
// pixels, whatever the number of bands and threads: the result is the same to the bit.
template <typename scalar_t>
struct InputGradient {
  Tensors<scalar_t> t;
  const scalar_t* grad_output;
  const RowExtent* extents;
  int64_t bands;
  acc_t<scalar_t>* grad_input;  // zeroed
};

}  // namespace dcnv3::cpu
