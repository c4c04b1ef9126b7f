// A warp of the emulation: 32 threads that run in turns, each on a stack of its own, and wait for each
// other where the kernel shuffles.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <functional>
#include <random>
#include <stdexcept>
#include <vector>

#include "../cuda/device_emulated.h"
#include "../cuda/launch.h"

namespace sparcom {

class Warp {
 public:
  // seed: of the order in which threads take their turns; 0: that of their numbers.
  explicit Warp(uint32_t seed) : random_(seed), ordered_(seed == 0) {
    for (Thread& t : threads_) t.stack.resize(1 << 16);
  }

  // Runs body(lane) of every lane to its end. Throws std::logic_error if threads that have not
  // returned do not meet at the same shuffle, or if one asks for the number of one that has.
  void run(const std::function<void(uint32_t)>& body) {
    body_ = &body;
    running_ = this;
    shuffle_xor = [](uint32_t x, uint32_t apart) { return running_->meet(x, apart); };
    std::array<uint32_t, threads_per_warp> order;
    for (uint32_t lane = 0; lane < order.size(); ++lane) {
      order[lane] = lane;
      start(lane);
    }
    do {
      if (!ordered_) std::shuffle(order.begin(), order.end(), random_);
      for (const uint32_t lane : order) resume(lane);
    } while (exchange());
    running_ = nullptr;
  }

 private:
  struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool waits = false;
    uint32_t x, apart;
  };

  void start(uint32_t lane) {
    Thread& t = threads_[lane];
    t.waits = true;  // for its first turn
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack.data();
    t.context.uc_stack.ss_size = t.stack.size();
    t.context.uc_link = &main_;
    makecontext(&t.context, [] { (*running_->body_)(running_->lane_); }, 0);
  }

  void resume(uint32_t lane) {
    if (!threads_[lane].waits) return;  // it has returned
    threads_[lane].waits = false;
    lane_ = lane;
    swapcontext(&main_, &threads_[lane].context);
  }

  // What a thread calls: its x goes out, and another's comes in with its next turn.
  uint32_t meet(uint32_t x, uint32_t apart) {
    Thread& t = threads_[lane_];
    t.waits = true;
    t.x = x;
    t.apart = apart;
    swapcontext(&t.context, &main_);
    return t.x;
  }

  // Gives every thread that waits the number it asked for; false if none does.
  bool exchange() {
    std::array<uint32_t, threads_per_warp> x;
    const Thread* first = nullptr;
    for (uint32_t lane = 0; lane < x.size(); ++lane) {
      const Thread& t = threads_[lane];
      if (!t.waits) continue;
      if (!first) first = &t;
      if (t.apart != first->apart) throw std::logic_error("warp: threads wait at two shuffles");
      const Thread& other = threads_[lane ^ t.apart];
      if (!other.waits) throw std::logic_error("warp: a thread shuffles with one that returned");
      x[lane] = other.x;
    }
    for (uint32_t lane = 0; first && lane < x.size(); ++lane)
      if (threads_[lane].waits) threads_[lane].x = x[lane];
    return first;
  }

  inline static Warp* running_ = nullptr;
  std::array<Thread, threads_per_warp> threads_;
  ucontext_t main_;
  uint32_t lane_ = 0;  // whose turn it is
  std::mt19937 random_;
  bool ordered_;
  const std::function<void(uint32_t)>* body_ = nullptr;
};

}  // namespace sparcom
