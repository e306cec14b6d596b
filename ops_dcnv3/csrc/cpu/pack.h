// Packs: neighbouring channels in a register, as GCC/Clang vectors. A pack of one is the plain number. Included once
// per instruction set, see kernels.h.

template <typename T, int N>
struct PackOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <typename T>
struct PackOf<T, 1> {
  using type = T;
};
template <typename T, int N>
using Pack = typename PackOf<T, N>::type;

// Packs go by reference: by value their passing would depend on the instruction set.
template <int N, typename T, typename scalar_t>
DCNV3_INLINE void load(Pack<T, N>& pack, const scalar_t* source) {
  if constexpr (std::is_same_v<T, scalar_t>) {
    std::memcpy(&pack, source, sizeof(pack));
  } else if constexpr (std::is_same_v<scalar_t, BFloat16>) {
    // A bfloat16 is the upper half of a float.
    Pack<uint16_t, N> half;
    std::memcpy(&half, source, sizeof(half));
    Pack<uint32_t, N> whole;
    if constexpr (N == 1) {
      whole = uint32_t(half) << 16;
    } else {
      whole = __builtin_convertvector(half, Pack<uint32_t, N>) << 16;
    }
    std::memcpy(&pack, &whole, sizeof(pack));
  } else {
    T values[N];
    for (int k = 0; k < N; ++k) {
      values[k] = static_cast<T>(source[k]);
    }
    std::memcpy(&pack, values, sizeof(pack));
  }
}

template <int N, typename T, typename scalar_t>
DCNV3_INLINE void store(scalar_t* destination, const Pack<T, N>& pack) {
  T values[N];
  std::memcpy(values, &pack, sizeof(pack));
  for (int k = 0; k < N; ++k) {
    destination[k] = static_cast<scalar_t>(values[k]);
  }
}

// Lanes that a sum over a pack leaves to be added later, for many packs at once.
constexpr int kPartialLanes = 4;

// Adds a pack, folded in halves, to kPartialLanes partial sums.
template <int N, typename T>
DCNV3_INLINE void add_folded(T* partial, const Pack<T, N>& pack) {
  if constexpr (N == 1) {
    partial[0] += pack;
  } else if constexpr (N <= kPartialLanes) {
    Pack<T, N> sum;
    std::memcpy(&sum, partial, sizeof(sum));
    sum += pack;
    std::memcpy(partial, &sum, sizeof(sum));
  } else {
    Pack<T, N / 2> halves[2];
    std::memcpy(halves, &pack, sizeof(pack));
    const Pack<T, N / 2> sum = halves[0] + halves[1];
    add_folded<N / 2, T>(partial, sum);
  }
}

// Lanes of one register.
template <typename T>
constexpr int kLanes = DCNV3_VECTOR_BYTES / sizeof(T);

// Calls f(std::integral_constant<int, N>, first channel) for packs that cover the channels of a group. The 16 or 32
// channels of the published models take one or two registers of AVX-512.
template <typename T, typename F>
DCNV3_INLINE void cover_with_packs(int64_t channels, const F& f) {
  int64_t channel = 0;
  for (; channel + kLanes<T> <= channels; channel += kLanes<T>) {
    f(std::integral_constant<int, kLanes<T>>{}, channel);
  }
  if constexpr (kLanes<T> > 4) {
    for (; channel + 4 <= channels; channel += 4) {
      f(std::integral_constant<int, 4>{}, channel);
    }
  }
  for (; channel < channels; ++channel) {
    f(std::integral_constant<int, 1>{}, channel);
  }
}
