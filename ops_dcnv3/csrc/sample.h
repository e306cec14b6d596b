// The arithmetic of one sample, shared by the CPU and the CUDA kernels, so that tests of the one cover what the other
// computes.
//
// No include guard and no namespace: the CUDA file includes it once, the CPU's kernels once per instruction set. The
// includer defines DCNV3_INLINE, the qualifiers of an inlined function.

// The arithmetic of a sample is generic in T and I: a number and an int32_t on the GPU, vectors of them on the CPU.
// Hence no branches, only selections among values of one type.
template <typename To, typename From>
DCNV3_INLINE To convert(const From& value) {
#if !defined(__CUDACC__)
  if constexpr (!std::is_arithmetic_v<From>) {
    return __builtin_convertvector(value, To);
  } else
#endif
    return static_cast<To>(value);
}

// The two pixels that an interpolation along one axis reads. A pixel beyond the border is clamped into the image, so
// that it may be read, and its weight and slope are zero.
template <typename T, typename I = int32_t>
struct Neighbours {
  I low, high;
  T low_weight, high_weight;
  T low_slope, high_slope;  // derivatives of the weights by the position: -1 and 1, or 0 beyond the border
  T inside;                 // 1 where -1 < position < size, else 0; also 0 for NaN. Outside, weights and slopes are 0.
};

// A position outside may be anything, NaN included; -2 stands for it.
template <typename T, typename I = int32_t>
DCNV3_INLINE Neighbours<T, I> neighbours(T position, int32_t size) {
  const T zero{}, one = zero + 1, end = convert<T>(I{} + size);
  const auto inside = (position > -one) & (position < end);
  const T safe = inside ? position : -one - one;
  const T truncated = convert<T>(convert<I>(safe));
  const T floor = safe < truncated ? truncated - one : truncated;
  const T next = floor + one, fraction = safe - floor;
  const auto has_low = floor >= zero;
  const auto has_high = (next >= zero) & (next < end);
  const I first{}, last = first + (size - 1), low = convert<I>(floor), high = low + 1;
  Neighbours<T, I> result;
  result.low = low > first ? low : first;
  result.high = high < last ? high : last;
  result.low_weight = has_low ? one - fraction : zero;
  result.high_weight = has_high ? fraction : zero;
  result.low_slope = has_low ? -one : zero;
  result.high_slope = has_high ? one : zero;
  result.inside = inside ? one : zero;
  return result;
}

// Position of a sample along one axis, from its parts.
template <typename T>
DCNV3_INLINE T sample_position(T centre, T tap, T offset, T offset_scale) {
  return centre + tap * offset_scale + offset * offset_scale;
}

// The weights of a sample's four corners in its value, and their derivatives by its position. The corners are (low y,
// low x), (low y, high x), (high y, low x), (high y, high x).
template <typename T>
struct CornerWeights {
  T value[4], by_y[4], by_x[4];
};

template <typename T, typename I>
DCNV3_INLINE CornerWeights<T> corner_weights(const Neighbours<T, I>& y, const Neighbours<T, I>& x) {
  return {
      {y.low_weight * x.low_weight, y.low_weight * x.high_weight, y.high_weight * x.low_weight,
       y.high_weight * x.high_weight},
      {y.low_slope * x.low_weight, y.low_slope * x.high_weight, y.high_slope * x.low_weight,
       y.high_slope * x.high_weight},
      {y.low_weight * x.low_slope, y.low_weight * x.high_slope, y.high_weight * x.low_slope,
       y.high_weight * x.high_slope}};
}
