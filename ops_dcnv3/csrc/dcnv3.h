// Parameters of DCNv3, without torch, for the CPU and the CUDA kernels.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DCNV3_HOST_DEVICE __host__ __device__
#else
#define DCNV3_HOST_DEVICE
#endif

namespace dcnv3 {

// Geometry along one image axis.
struct Axis {
  int32_t size;  // of the input
  int32_t out_size;
  int32_t kernel;
  int32_t stride;
  int32_t padding;
  int32_t dilation;

  // Floor-middle of the dilated grid: the point around which offset_scale stretches it.
  DCNV3_HOST_DEVICE int64_t middle() const { return int64_t(dilation) * (kernel - 1) / 2; }

  // Place of the grid's middle for an output index, in pixels of the unpadded input.
  DCNV3_HOST_DEVICE int64_t centre(int64_t out) const { return out * stride + middle() - padding; }

  // Place of a tap relative to the centre, before offset_scale.
  DCNV3_HOST_DEVICE int64_t tap(int64_t index) const { return index * dilation - middle(); }
};

struct Params {
  Axis y;
  Axis x;
  int64_t batch;
  int64_t groups;
  int64_t group_channels;
  double offset_scale;

  DCNV3_HOST_DEVICE int64_t points() const { return int64_t(y.kernel) * x.kernel; }
  DCNV3_HOST_DEVICE int64_t channels() const { return groups * group_channels; }
  DCNV3_HOST_DEVICE int64_t samples_per_pixel() const { return groups * points(); }
  DCNV3_HOST_DEVICE int64_t image_size() const { return int64_t(y.size) * x.size * channels(); }
  DCNV3_HOST_DEVICE int64_t out_pixels() const { return int64_t(y.out_size) * x.out_size; }
  // Points are ordered w-outer, h-inner.
  DCNV3_HOST_DEVICE int64_t tap_y(int64_t point) const { return y.tap(point % y.kernel); }
  DCNV3_HOST_DEVICE int64_t tap_x(int64_t point) const { return x.tap(point / y.kernel); }
};

}  // namespace dcnv3
