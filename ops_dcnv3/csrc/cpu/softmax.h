// Softmax over the points of each group, for many groups at once. Included once per instruction set, see kernels.h.

constexpr double inverse_factorial(int n) { return n == 0 ? 1.0 : inverse_factorial(n - 1) / n; }

// exp(x) for x <= 64, to the last bit or two: 2^n * exp(r) with |r| <= log(2) / 2, where a Taylor polynomial serves.
// Zero below the least number that has full precision; NaN stays NaN.
template <typename T>
DCNV3_INLINE Pack<T, kLanes<T>> exp_of_moderate(const Pack<T, kLanes<T>>& x) {
  constexpr bool kDouble = std::is_same_v<T, double>;
  using Reals = Pack<T, kLanes<T>>;
  // Unsigned: the sum below overflows for a NaN.
  using Bits = Pack<std::conditional_t<kDouble, uint64_t, uint32_t>, kLanes<T>>;
  constexpr int kDegree = kDouble ? 13 : 7, kMantissaBits = kDouble ? 52 : 23;
  constexpr T kLeast = kDouble ? -708 : -87;
  constexpr T kRounder = kDouble ? 0x1.8p52 : 0x1.8p23f;  // adding it leaves the nearest integer in the lowest bits
  constexpr T kLog2High = kDouble ? 0x1.62e42fefap-1 : 0x1.62ep-1f;  // few bits, so that n times it is exact
  constexpr T kLog2Low = static_cast<T>(0x1.62e42fefa39efp-1L - static_cast<long double>(kLog2High));

  const Reals least = Reals{} + kLeast, safe = x < least ? least : x;
  const Reals shifted = safe * T(0x1.71547652b82fep0) + kRounder, n = shifted - kRounder;
  const Reals rest = safe - n * kLog2High - n * kLog2Low;
  Reals result = Reals{} + static_cast<T>(inverse_factorial(kDegree));
  for (int k = kDegree - 1; k >= 0; --k) {
    result = result * rest + static_cast<T>(inverse_factorial(k));
  }
  result = (Reals)((Bits)result + ((Bits)shifted << kMantissaBits));
  // Shifted into the exponent, the bits of a NaN may make a number.
  return x < least ? Reals{} : x == x ? result : x;
}

// Whether the logits are so near zero that neither their exponentials nor sums of these leave the range of T.
template <typename T>
DCNV3_INLINE bool are_moderate(int64_t count, const T* logits) {
  using Reals = Pack<T, kLanes<T>>;
  Reals largest{};
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    Reals values;
    std::memcpy(&values, logits + i, sizeof(values));
    values = values < Reals{} ? -values : values;
    largest = values > largest ? values : largest;
  }
  return all<kLanes<T>>(largest < Reals{} + 64);
}

template <typename T>
DCNV3_INLINE void subtract_largest(int64_t groups, int64_t points, T* logits) {
  for (int64_t g = 0; g < groups; ++g, logits += points) {
    T largest = logits[0];
    for (int64_t i = 1; i < points; ++i) {
      largest = logits[i] > largest ? logits[i] : largest;
    }
    for (int64_t i = 0; i < points; ++i) {
      logits[i] -= largest;
    }
  }
}

// In place. Room for a whole number of vectors is needed.
template <typename T>
DCNV3_INLINE void softmax(int64_t groups, int64_t points, T* logits) {
  // What pads the last vector must not decide how the others are computed.
  const int64_t count = groups * points, padded = (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  std::fill(logits + count, logits + padded, T{});
  if (!are_moderate(count, logits)) {
    subtract_largest(groups, points, logits);
  }
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    Pack<T, kLanes<T>> values;
    std::memcpy(&values, logits + i, sizeof(values));
    values = exp_of_moderate<T>(values);
    std::memcpy(logits + i, &values, sizeof(values));
  }
  T* group = logits;
  for (int64_t g = 0; g < groups; ++g, group += points) {
    T sum = 0;
    for (int64_t i = 0; i < points; ++i) {
      sum += group[i];
    }
    const T factor = 1 / sum;
    for (int64_t i = 0; i < points; ++i) {
      group[i] *= factor;
    }
  }
}

// Gradients by the weights become, in place, gradients by the logits.
template <typename T>
DCNV3_INLINE void softmax_backward(int64_t groups, int64_t points, const T* weights, T* grads) {
  for (int64_t g = 0; g < groups; ++g, weights += points, grads += points) {
    T mean = 0;
    for (int64_t i = 0; i < points; ++i) {
      mean += weights[i] * grads[i];
    }
    for (int64_t i = 0; i < points; ++i) {
      grads[i] = weights[i] * (grads[i] - mean);
    }
  }
}
