// What the kernels work on. Tasks are numbered; a kernel runs a range of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../operator.h"

namespace dcnv3::cpu {

// What is planned at a time: whole pixels of one row of the output, or some groups of one pixel. A unit is one group of
// one pixel; units are numbered pixel by pixel.
struct Chunk {
  int64_t image, row;
  int64_t pixel, pixels;  // within the row
  int64_t group, groups;

  int64_t units() const { return pixels * groups; }
  int64_t first_unit(const Params& p) const {  // in the whole output
    return ((image * p.y.out_size + row) * p.x.out_size + pixel) * p.groups + group;
  }
};

// How the output is divided into chunks, and these into pieces for the threads: a piece is a row, or a part of one that
// is long, as where it is a sequence. The pieces of all images are numbered row by row.
struct Pieces {
  int64_t chunk_pixels, chunk_groups;
  int64_t pixels;  // of one piece; the last of a row may have fewer
  int64_t per_row;
  int64_t per_image;

  explicit Pieces(const Params& p) {
    constexpr int64_t kSamples = 144;  // 4 pixels of 4 groups of 3x3 points; their arrays stay in the L1 cache
    constexpr int64_t kWork = 1 << 18;
    const int64_t units = std::max<int64_t>(1, kSamples / p.points());
    chunk_groups = std::min(units, p.groups);
    chunk_pixels = std::min(std::max<int64_t>(1, units / p.groups), int64_t(p.x.out_size));
    pixels = chunk_pixels * std::max<int64_t>(1, kWork / (chunk_pixels * p.channels() * p.points()));
    per_row = (p.x.out_size + pixels - 1) / pixels;
    per_image = per_row * p.y.out_size;
  }

  int64_t chunk_units() const { return chunk_pixels * chunk_groups; }
};

// Range of pixels of an image, numbered row by row.
struct PixelRange {
  int64_t begin, end;

  bool holds(int64_t pixel) const { return begin <= pixel && pixel < end; }
  bool holds(const PixelRange& other) const { return begin <= other.begin && other.end <= end; }
  bool meets(const PixelRange& other) const { return begin < other.end && other.begin < end; }
};

template <typename scalar_t>
struct Tensors {
  Params p;
  const scalar_t* input;
  const scalar_t* offset;
  const scalar_t* mask;
  bool mask_is_logits;
};

// Tasks: pieces.
template <typename scalar_t>
struct Forward {
  Tensors<scalar_t> t;
  Pieces pieces;
  scalar_t* output;
};

// Pixels of the input that each piece may touch. Tasks: pieces.
template <typename scalar_t>
struct Reach {
  Tensors<scalar_t> t;
  Pieces pieces;
  PixelRange* reach;
};

// Tasks: pixels of the inputs of all images. To compute a band of them is to visit the pieces that reach it and to add
// to pixels of the band only. So every element of grad_input receives its contributions in the order of the output
// pixels, whatever the bands and the threads: the result is the same to the bit. The gradients of offset and mask of a
// piece are computed with the band that holds the piece's share of the pixels.
template <typename scalar_t>
struct Backward {
  Tensors<scalar_t> t;
  Pieces pieces;
  const PixelRange* reach;  // null where every band is whole images, or grad_input is not wanted
  const scalar_t* grad_output;
  acc_t<scalar_t>* grad_input;  // zeroed; null: not wanted
  scalar_t* grad_offset;        // null: not wanted, nor the next
  scalar_t* grad_mask;
};

}  // namespace dcnv3::cpu
