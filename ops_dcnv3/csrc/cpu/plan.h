// The plan: addresses and weights of many samples of one output pixel, computed together with vector instructions before any
// channel is read. Included once per instruction set, see kernels.h.

// A chunk is a whole number of groups of one pixel. Arrays are padded to a multiple of kLanes, so that the loop over samples
// needs no remainder; the padding holds numbers that nobody reads.
template <typename scalar_t>
class Plan {
 public:
  using T = acc_t<scalar_t>;
  static constexpr int64_t kSamplesPerChunk = 144;  // 16 groups of 3x3 points: the arrays stay in the L1 cache

  explicit Plan(const Params& params) : p_(params), points_(params.points()) {
    groups_per_chunk_ = std::clamp<int64_t>(kSamplesPerChunk / points_, 1, p_.groups);
    capacity_ = (groups_per_chunk_ * points_ + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    reals_ = std::make_unique<T[]>(kReals * capacity_);
    ints_ = std::make_unique<int32_t[]>(kInts * capacity_);
    for (int64_t i = 0; i < groups_per_chunk_ * points_; ++i) {
      tap_y()[i] = static_cast<T>(p_.tap_y(i % points_));
      tap_x()[i] = static_cast<T>(p_.tap_x(i % points_));
    }
  }

  int64_t groups_per_chunk() const { return groups_per_chunk_; }
  int64_t capacity() const { return capacity_; }

  // Plans `groups` groups of the output pixel (row, column), whose offsets and masks begin at the given addresses.
  DCNV3_INLINE void make(int64_t row, int64_t column, int64_t groups, const scalar_t* offset, const scalar_t* mask) {
    count_ = groups * points_;
    T* const offset_y = real(2);
    T* const offset_x = real(3);
    T* const mask_out = real(4);
#pragma GCC ivdep
    for (int64_t i = 0; i < count_; ++i) {
      offset_x[i] = static_cast<T>(offset[2 * i]);
      offset_y[i] = static_cast<T>(offset[2 * i + 1]);
      mask_out[i] = static_cast<T>(mask[i]);
    }
    locate(static_cast<T>(p_.y.centre(row)), static_cast<T>(p_.x.centre(column)));
  }

  // Results, one element per sample.
  const T* mask() const { return real(4); }
  const T* weight(int corner) const { return real(5 + corner); }  // bilinear times mask
  const int32_t* inside() const { return integer(0); }
  const int32_t* pixel() const { return integer(1); }  // upper left corner: row * width + column
  const int32_t* right() const { return integer(2); }  // elements from the left to the right corners: channels, or 0 at a border
  const int32_t* down() const { return integer(3); }
  const int32_t* low_row() const { return integer(4); }
  const int32_t* high_row() const { return integer(5); }

  DCNV3_INLINE Neighbours<T> y_neighbours(int64_t i) const { return neighbours_at(9, i); }
  DCNV3_INLINE Neighbours<T> x_neighbours(int64_t i) const { return neighbours_at(13, i); }

 private:
  using Reals = Pack<T, kLanes<T>>;
  using Integers = Pack<int32_t, kLanes<T>>;
  static constexpr int kReals = 17;
  static constexpr int kInts = 6;

  T* real(int index) const { return reals_.get() + index * capacity_; }
  int32_t* integer(int index) const { return ints_.get() + index * capacity_; }
  T* tap_y() const { return real(0); }
  T* tap_x() const { return real(1); }

  DCNV3_INLINE Neighbours<T> neighbours_at(int first, int64_t i) const {
    return {0, 0, real(first)[i], real(first + 1)[i], real(first + 2)[i], real(first + 3)[i], T(1)};
  }

  // Each step computes kLanes samples at once.
  DCNV3_INLINE void locate(T centre_y, T centre_x) {
    const Reals scale = Reals{} + static_cast<T>(p_.offset_scale);
    const Reals middle_y = Reals{} + centre_y, middle_x = Reals{} + centre_x;
    const int32_t height = p_.y.size, width = p_.x.size;
    const int32_t channels = static_cast<int32_t>(p_.channels());
    for (int64_t i = 0; i < count_; i += kLanes<T>) {
      const auto read = [&](int index) DCNV3_INLINE_LAMBDA {
        Reals values;
        std::memcpy(&values, real(index) + i, sizeof(values));
        return values;
      };
      const auto write = [&](int index, const Reals& values) DCNV3_INLINE_LAMBDA {
        std::memcpy(real(index) + i, &values, sizeof(values));
      };
      const auto write_ints = [&](int index, const Integers& values) DCNV3_INLINE_LAMBDA {
        std::memcpy(integer(index) + i, &values, sizeof(values));
      };
      const auto y = neighbours<Reals, Integers>(sample_position(middle_y, read(0), read(2), scale), height);
      const auto x = neighbours<Reals, Integers>(sample_position(middle_x, read(1), read(3), scale), width);
      write_ints(0, convert<Integers>(y.inside * x.inside));
      write_ints(1, y.low * width + x.low);
      write_ints(2, (x.high - x.low) * channels);
      write_ints(3, (y.high - y.low) * (width * channels));
      write_ints(4, y.low);
      write_ints(5, y.high);
      const Reals low = read(4) * y.low_weight, high = read(4) * y.high_weight;
      write(5, low * x.low_weight);
      write(6, low * x.high_weight);
      write(7, high * x.low_weight);
      write(8, high * x.high_weight);
      write(9, y.low_weight);
      write(10, y.high_weight);
      write(11, y.low_slope);
      write(12, y.high_slope);
      write(13, x.low_weight);
      write(14, x.high_weight);
      write(15, x.low_slope);
      write(16, x.high_slope);
    }
  }

  Params p_;
  int64_t points_;
  int64_t groups_per_chunk_;
  int64_t capacity_;
  int64_t count_ = 0;
  std::unique_ptr<T[]> reals_;
  std::unique_ptr<int32_t[]> ints_;
};
