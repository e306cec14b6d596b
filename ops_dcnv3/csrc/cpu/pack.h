// Packs: neighbouring numbers in a register, as GCC/Clang vectors. A pack of one is the plain number. Included once per
// instruction set, see kernels.h.

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

// Lanes of one register.
template <typename T>
constexpr int kLanes = DCNV3_VECTOR_BYTES / sizeof(T);

// A bfloat16 is the upper half of a float. What the compiler makes of a conversion of 16-bit lanes takes several times
// the instructions.
template <int N>
DCNV3_INLINE void load_upper_halves(Pack<uint32_t, N>& whole, const BFloat16* source) {
#if DCNV3_VECTOR_BYTES == 64
  if constexpr (N == 16) {
    __m256i half;
    std::memcpy(&half, source, sizeof(half));
    whole = (Pack<uint32_t, N>)_mm512_maskz_cvtepu16_epi32(-1, half) << 16;
    return;
  }
#elif DCNV3_VECTOR_BYTES == 32
  if constexpr (N == 8) {
    __m128i half;
    std::memcpy(&half, source, sizeof(half));
    whole = (Pack<uint32_t, N>)_mm256_cvtepu16_epi32(half) << 16;
    return;
  }
#endif
  Pack<uint16_t, N> half;
  std::memcpy(&half, source, sizeof(half));
  whole = convert<Pack<uint32_t, N>>(half) << 16;
}

// Packs go by reference: by value their passing would depend on the instruction set.
template <int N, typename T, typename scalar_t>
DCNV3_INLINE void load(Pack<T, N>& pack, const scalar_t* source) {
  if constexpr (std::is_same_v<T, scalar_t>) {
    std::memcpy(&pack, source, sizeof(pack));
  } else if constexpr (std::is_same_v<scalar_t, BFloat16>) {
    Pack<uint32_t, N> whole;
    load_upper_halves<N>(whole, source);
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
  if constexpr (std::is_same_v<T, scalar_t>) {
    std::memcpy(destination, &pack, sizeof(pack));
  } else if constexpr (std::is_same_v<scalar_t, BFloat16> && N > 1) {
    // To the nearest, ties to even; a NaN whose payload would be lost is the quiet one.
    Pack<uint32_t, N> whole;
    std::memcpy(&whole, &pack, sizeof(whole));
    const Pack<uint32_t, N> rounded = (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
    const auto half = convert<Pack<uint16_t, N>>(pack == pack ? rounded : Pack<uint32_t, N>{} + 0x7fc0);
    std::memcpy(destination, &half, sizeof(half));
  } else {
    T values[N];
    std::memcpy(values, &pack, sizeof(pack));
    for (int k = 0; k < N; ++k) {
      destination[k] = static_cast<scalar_t>(values[k]);
    }
  }
}

// Whether a comparison holds in all lanes.
template <int N, typename Mask>
DCNV3_INLINE bool all(const Mask& mask) {
#if DCNV3_VECTOR_BYTES == 64
  return sizeof(mask[0]) == 8 ? _mm512_movepi64_mask((__m512i)mask) == 0xff
                              : _mm512_movepi32_mask((__m512i)mask) == 0xffff;
#elif DCNV3_VECTOR_BYTES == 32
  return _mm256_movemask_epi8((__m256i)mask) == -1;
#else
  bool result = true;
  for (int k = 0; k < N; ++k) {
    result &= mask[k] != 0;
  }
  return result;
#endif
}

template <int... Lanes, typename T>
DCNV3_INLINE T shuffle(const T& a, const T& b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Lanes...);
#else
  using Index = std::conditional_t<sizeof(a[0]) == 8, int64_t, int32_t>;
  return __builtin_shuffle(a, b, Pack<Index, sizeof...(Lanes)>{Lanes...});
#endif
}

// Of the lanes of a and then b, in blocks of kBlock: every second block, from the one numbered kFirst.
template <int N, int kBlock, int kFirst, typename T, int... Lanes>
DCNV3_INLINE T every_second(const T& a, const T& b, std::integer_sequence<int, Lanes...>) {
  return shuffle<((2 * (Lanes / kBlock) + kFirst) * kBlock + Lanes % kBlock)...>(a, b);
}
template <int N, int kBlock, typename T>
DCNV3_INLINE T evens(const T& a, const T& b) {
  return every_second<N, kBlock, 0>(a, b, std::make_integer_sequence<int, N>{});
}
template <int N, int kBlock, typename T>
DCNV3_INLINE T odds(const T& a, const T& b) {
  return every_second<N, kBlock, 1>(a, b, std::make_integer_sequence<int, N>{});
}

// Half of the lanes of a and b in turn.
template <int N, int kHigh, typename T, int... Lanes>
DCNV3_INLINE T interleaved(const T& a, const T& b, std::integer_sequence<int, Lanes...>) {
  return shuffle<(Lanes / 2 + Lanes % 2 * N + kHigh * N / 2)...>(a, b);
}

// Stores the lanes of four packs in turn: a, b, c and d of lane 0, then those of lane 1, and so on.
template <int N, typename T>
DCNV3_INLINE void store_interleaved(
    T* destination, const Pack<T, N>& a, const Pack<T, N>& b, const Pack<T, N>& c, const Pack<T, N>& d) {
  constexpr auto lanes = std::make_integer_sequence<int, N>{};
  const Pack<T, N> ac[2] = {interleaved<N, 0>(a, c, lanes), interleaved<N, 1>(a, c, lanes)};
  const Pack<T, N> bd[2] = {interleaved<N, 0>(b, d, lanes), interleaved<N, 1>(b, d, lanes)};
  store<N, T>(destination, interleaved<N, 0>(ac[0], bd[0], lanes));
  store<N, T>(destination + N, interleaved<N, 1>(ac[0], bd[0], lanes));
  store<N, T>(destination + 2 * N, interleaved<N, 0>(ac[1], bd[1], lanes));
  store<N, T>(destination + 3 * N, interleaved<N, 1>(ac[1], bd[1], lanes));
}

// Four numbers, each spread over a pack. Where an instruction exists that loads all four into every quarter of a
// register, one load and four shuffles do it: there are more units for shuffles than for loads.
template <int k, typename T, int... Lanes>
DCNV3_INLINE T spread_within_quarters(const T& quarters, std::integer_sequence<int, Lanes...>) {
  return shuffle<(Lanes / 4 * 4 + k)...>(quarters, quarters);
}
template <int N, typename T>
DCNV3_INLINE void spread(Pack<T, N> packs[4], const T* numbers) {
#if DCNV3_VECTOR_BYTES > 16
  if constexpr (N == kLanes<float> && std::is_same_v<T, float>) {
    constexpr auto lanes = std::make_integer_sequence<int, N>{};
#if DCNV3_VECTOR_BYTES == 64
    const Pack<T, N> quarters = (Pack<T, N>)_mm512_maskz_broadcast_f32x4(-1, _mm_loadu_ps(numbers));
#else
    const Pack<T, N> quarters = (Pack<T, N>)_mm256_broadcast_ps(reinterpret_cast<const __m128*>(numbers));
#endif
    packs[0] = spread_within_quarters<0>(quarters, lanes);
    packs[1] = spread_within_quarters<1>(quarters, lanes);
    packs[2] = spread_within_quarters<2>(quarters, lanes);
    packs[3] = spread_within_quarters<3>(quarters, lanes);
    return;
  }
#endif
  for (int k = 0; k < 4; ++k) {
    packs[k] = Pack<T, N>{} + numbers[k];
  }
}

// Sums of neighbouring blocks of a and then b.
template <int N, int kBlock, typename T>
DCNV3_INLINE T add_neighbours(const T& a, const T& b) {
  return evens<N, kBlock>(a, b) + odds<N, kBlock>(a, b);
}

// Sums of neighbouring blocks, those of a in the even blocks and those of b in the odd ones. Cheaper than to bring the
// blocks into order: one of its two shuffles moves no lane.
template <int N, int kBlock, typename T, int... Lanes>
DCNV3_INLINE T fold(const T& a, const T& b, std::integer_sequence<int, Lanes...>) {
  return shuffle<(Lanes + Lanes / kBlock % 2 * N)...>(a, b) +
         shuffle<((Lanes ^ kBlock) + Lanes / kBlock % 2 * N)...>(a, b);
}
template <int N, int kBlock, typename T>
DCNV3_INLINE T fold(const T& a, const T& b) {
  return fold<N, kBlock>(a, b, std::make_integer_sequence<int, N>{});
}

// Lanes that a sum over a pack leaves to be added later, for many packs at once.
constexpr int kPartialLanes = 4;

// Adds each of four packs, folded to kPartialLanes lanes, to its place in the partial sums, which kFirst clears before.
template <int N, bool kFirst, typename T>
DCNV3_INLINE void add_folded(T* partial, const Pack<T, N> packs[4]) {
  if constexpr (kFirst) {
    std::memset(partial, 0, 4 * kPartialLanes * sizeof(T));
  }
  const auto add = [](T* destination, const Pack<T, N>& pack) DCNV3_INLINE_LAMBDA {
    Pack<T, N> sum;
    load<N, T>(sum, destination);
    sum += pack;
    store<N, T>(destination, sum);
  };
  if constexpr (N <= kPartialLanes) {
    for (int k = 0; k < 4; ++k) {
      add(partial + k * kPartialLanes, packs[k]);
    }
  } else {
    const auto first = fold<N, kPartialLanes>(packs[0], packs[1]);
    const auto second = fold<N, kPartialLanes>(packs[2], packs[3]);
    if constexpr (N == 2 * kPartialLanes) {
      add(partial, first);
      add(partial + N, second);
    } else {
      static_assert(N == 4 * kPartialLanes);
      add(partial, fold<N, 2 * kPartialLanes>(first, second));
    }
  }
}

enum Access { kRead, kWrite };
enum Cache { kL2 = 2, kL1 };

template <int kAccess, int kCache, typename T>
DCNV3_INLINE void prefetch(const T* address, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / sizeof(T)) {
    __builtin_prefetch(address + i, kAccess, kCache);
  }
}

// Neighbouring channels of a group that one pass over the samples serves, in one or more registers.
template <int Lanes, int Registers>
struct Tile {
  static constexpr int lanes = Lanes, registers = Registers, channels = Lanes * Registers;
};

// Calls f(tile, first channel) for tiles that cover the channels of a group. The 16 or 32 channels of the published
// models are one tile of AVX-512.
template <typename T, typename F>
DCNV3_INLINE void cover_with_tiles(int64_t channels, const F& f) {
  int64_t channel = 0;
  for (; channel + 2 * kLanes<T> <= channels; channel += 2 * kLanes<T>) {
    f(Tile<kLanes<T>, 2>{}, channel);
  }
  for (; channel + kLanes<T> <= channels; channel += kLanes<T>) {
    f(Tile<kLanes<T>, 1>{}, channel);
  }
  if constexpr (kLanes<T> > 4) {
    for (; channel + 4 <= channels; channel += 4) {
      f(Tile<4, 1>{}, channel);
    }
  }
  for (; channel < channels; ++channel) {
    f(Tile<1, 1>{}, channel);
  }
}
