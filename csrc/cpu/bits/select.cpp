// select, as bits.h defines it.
//
// Counts are integers, so the cut is found by counting, without sorting. A small sample of a group
// suggests a base somewhat below the cut. One pass over the counts narrows them to bytes above this
// base and collects the bytes that are not 0, a few per cent of all. Among these the cut is found.
// A second pass, over the bytes, makes the set. If the cut lies outside the range of the bytes, the
// first pass runs again with a better base.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "../parallel.h"
#include "bits.h"

namespace sparcom {
namespace {

constexpr int64_t sample_size = 1024, sample_run = 16;
constexpr int64_t chunk_size = 16384;  // a multiple of 64

// A fixed order of components that favours no layer.
uint64_t splitmix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The highest value that at least `wanted` of the values reach; 0 if there are fewer values.
int32_t reached_by(const std::vector<int32_t>& values, int64_t wanted) {
  int64_t low = 0, high = std::numeric_limits<int32_t>::max();
  if (!values.empty()) high = int64_t(*std::max_element(values.begin(), values.end())) + 1;
  while (high - low > 1) {
    const int32_t middle = int32_t((low + high) / 2);
    int64_t reached = 0;
    for (const int32_t x : values) reached += x >= middle;
    (reached >= wanted ? low : high) = middle;
  }
  return int32_t(low);
}

// Neighbouring components of a group, from `begin` on, and their place in the group's buffers,
// where each range begins at a whole word.
struct Chunk {
  int64_t begin, size, place;
};

// The memory of a Selector. Its thread keeps it: for one row of 352,256 counts, fresh pages cost as
// much as the selection itself.
struct Buffers {
  std::vector<uint8_t> bytes, top;
  std::vector<uint64_t> words;

  void grow_to(size_t n) {  // a multiple of 64
    if (bytes.size() >= n) return;
    bytes.resize(n);
    top.resize(n);
    words.resize(n / 64);
  }
};

Buffers& buffers() {
  static thread_local Buffers kept;
  return kept;
}

// Selects one group of one row at a time.
class Selector {
 public:
  // threads: how many make the passes over one group.
  Selector(const Select& s, int threads) : s_(s), threads_(threads), chunks_(size_t(s.groups)) {
    int64_t most = 0;
    size_t most_chunks = 0;
    for (int64_t g = 0; g < s.groups; ++g) {
      std::vector<Chunk>& chunks = chunks_[size_t(g)];
      int64_t place = 0;
      for (int64_t r = s.range_offsets[g]; r < s.range_offsets[g + 1]; ++r) {
        const int64_t begin = s.ranges[r].begin, end = s.ranges[r].end;
        for (int64_t i = begin; i < end; i += chunk_size)
          chunks.push_back({i, std::min(chunk_size, end - i), place + i - begin});
        place += (end - begin + 63) / 64 * 64;
      }
      most = std::max(most, place);
      most_chunks = std::max(most_chunks, chunks.size());
    }
    buffers().grow_to(size_t(most));
    found_.resize(most_chunks);
    sample_.reserve(size_t(sample_size + sample_run));
  }

  void run(int64_t row, int64_t g) {
    row_ = s_.counts + row * s_.components;
    group_ = &chunks_[size_t(g)];
    const int64_t at = row * s_.groups + g;
    int64_t cut = s_.cuts[at];  // may become 2^31, which no count reaches
    if (s_.sizes) {
      cut = nominal_cut(s_.sizes[g]);
      cut += s_.ties == Ties::exclusive;
    }
    cut = std::max<int64_t>(cut, 1);
    if (!s_.sizes || cut - base_ < 1 || cut - base_ > 254) narrow(int32_t(cut - 1));
    const int32_t above = int32_t(cut - base_);
    int64_t size = at_least(above, words_);
    if (s_.sizes && s_.ties == Ties::exact && size > s_.sizes[g]) {
      drop_ties(above, size - s_.sizes[g]);
      size = s_.sizes[g];
    }
    s_.cuts[at] = int32_t(std::min<int64_t>(cut, std::numeric_limits<int32_t>::max()));
    s_.selected[at] = int32_t(size);
    write(s_.bits + row * ((s_.components + 7) / 8));
  }

 private:
  // Calls f(index of chunk) for every chunk; each thread takes neighbouring ones.
  template <class F>
  void for_chunks(F f) {
    const int64_t n = int64_t(group_->size());
    parallel_for_threads(int(std::min<int64_t>(threads_, n)), [&](int thread, int n_threads) {
      for (int64_t c = n * thread / n_threads; c < n * (thread + 1) / n_threads; ++c) f(size_t(c));
    });
  }

  // bytes_ = counts - base, saturated; top_ = those above 0, top_size_ of them.
  void narrow(int32_t base) {
    base_ = base;
    for_chunks([&](size_t c) {
      const Chunk& k = (*group_)[c];
      found_[c] = bit_kernels().narrow(row_ + k.begin, k.size, base, &bytes_[size_t(k.place)],
                                       &top_[size_t(k.place)]);
    });
    top_size_ = 0;
    for (size_t c = 0; c < group_->size(); ++c) {
      std::memmove(top_.data() + top_size_, &top_[size_t((*group_)[c].place)], size_t(found_[c]));
      top_size_ += found_[c];
    }
  }

  // words = the set of bytes that are at least t, 1 <= t <= 255; returns its size.
  int64_t at_least(int32_t t, std::vector<uint64_t>& words) {
    for_chunks([&](size_t c) {
      const Chunk& k = (*group_)[c];
      found_[c] = bit_kernels().at_least(&bytes_[size_t(k.place)], k.size, uint8_t(t),
                                         &words[size_t(k.place / 64)]);
    });
    int64_t size = 0;
    for (size_t c = 0; c < group_->size(); ++c) size += found_[c];
    return size;
  }

  // How many counts exceed the base by t or more, 1 <= t <= 255.
  int64_t reach(int32_t t) {
    return bit_kernels().at_least(top_.data(), top_size_, uint8_t(t), words_.data());
  }

  // The highest count that at least `size` components reach; 0 if the group is smaller.
  int32_t nominal_cut(int64_t size) {
    int64_t low = 0, high = int64_t(1) << 31;  // low is reached, high is not
    int64_t base = guess_base(size);
    for (int64_t step = 250;; step = std::min<int64_t>(8 * step, 1 << 30)) {
      narrow(int32_t(base));
      if (top_size_ < size) {
        high = base + 1;
        base = std::max(base - step, (low + high) / 2);
      } else if (reach(255) >= size) {
        low = base + 255;
        base = std::min(base + step, (low + high) / 2);
      } else {
        int32_t reached = 1, missed = 255;
        while (missed - reached > 1) {
          const int32_t middle = (reached + missed) / 2;
          (reach(middle) >= size ? reached : missed) = middle;
        }
        return base_ + reached;
      }
      if (high - low == 1) return int32_t(low);
      if (high - low <= 254) base = low;
    }
  }

  // A base below the cut, from a sample of the group: runs of counts at even distances. About three
  // times as many components as wanted should lie above it.
  int64_t guess_base(int64_t size) {
    int64_t n = 0, at = 0;
    for (const Chunk& k : *group_) n += k.size;
    const int64_t stride = std::max(sample_run, n / (sample_size / sample_run));
    sample_.clear();
    for (const Chunk& k : *group_) {
      for (; at < k.size && sample_.size() < sample_size; at += stride)
        sample_.insert(sample_.end(), row_ + k.begin + at,
                       row_ + k.begin + std::min(at + sample_run, k.size));
      at -= std::min(at, k.size);
    }
    const int64_t m = int64_t(sample_.size());
    const int64_t wanted = n ? size * m / n : 0;
    const int32_t base = std::max(reached_by(sample_, 3 * wanted + 8) - 1, 0);
    const int32_t cut = reached_by(sample_, wanted + 1);
    return cut - base < 200 ? base : cut - 127;
  }

  // Removes the surplus from words_: of the components whose byte is `cut`, those that come last in
  // the fixed order.
  void drop_ties(int32_t cut, int64_t surplus) {
    struct Tie {
      uint64_t hash, *word;
      uint64_t bit;
    };
    std::vector<Tie> ties;
    std::vector<uint64_t> above(words_.size());
    at_least(cut + 1, above);
    for (const Chunk& k : *group_)
      for (int64_t i = 0; i < k.size; i += 64) {
        const size_t w = size_t((k.place + i) / 64);
        for (uint64_t tied = words_[w] & ~above[w]; tied; tied &= tied - 1) {
          const uint64_t component = uint64_t(k.begin + i + __builtin_ctzll(tied));
          ties.push_back({splitmix64(component), &words_[w], tied & -tied});
        }
      }
    const auto last = ties.end() - surplus;
    std::nth_element(ties.begin(), last, ties.end(),
                     [](const Tie& a, const Tie& b) { return a.hash < b.hash; });
    for (auto tie = last; tie != ties.end(); ++tie) *tie->word &= ~tie->bit;
  }

  // Writes words_ to a row of bits.
  void write(uint8_t* bits) const {
    for (const Chunk& k : *group_) {
      const uint64_t* const words = &words_[size_t(k.place / 64)];
      int64_t i = 0;
      if (k.begin % 8 == 0) {
        i = k.size / 8 * 8;
        std::memcpy(bits + k.begin / 8, words, size_t(i / 8));
      }
      for (; i < k.size; ++i)
        bits[(k.begin + i) / 8] |= uint8_t((words[i / 64] >> (i % 64) & 1) << ((k.begin + i) % 8));
    }
  }

  const Select& s_;
  const int threads_;
  std::vector<std::vector<Chunk>> chunks_;  // of each group
  std::vector<uint8_t>& bytes_ = buffers().bytes;  // of the thread that made this object
  std::vector<uint8_t>& top_ = buffers().top;
  std::vector<uint64_t>& words_ = buffers().words;
  std::vector<int64_t> found_;  // of each chunk
  std::vector<int32_t> sample_;
  const std::vector<Chunk>* group_ = nullptr;  // being selected
  const int32_t* row_ = nullptr;
  int32_t base_ = 0;
  int64_t top_size_ = 0;
};

}  // namespace

void select(const Select& s) {
  std::memset(s.bits, 0, size_t(s.rows * ((s.components + 7) / 8)));
  const int threads = max_threads();
  const auto run_row = [&](Selector& selector, int64_t row) {
    for (int64_t g = 0; g < s.groups; ++g) selector.run(row, g);
  };
  if (s.rows < threads) {
    Selector selector(s, threads);
    for (int64_t row = 0; row < s.rows; ++row) run_row(selector, row);
    return;
  }
  std::atomic<int64_t> next{0};
  parallel_for_threads(threads, [&](int, int) {
    Selector selector(s, 1);
    for (int64_t row; (row = next.fetch_add(1)) < s.rows;) run_row(selector, row);
  });
}

}  // namespace sparcom
