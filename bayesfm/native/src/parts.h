// Work in parts, shared out over XLA's own thread pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace bayesfm {

// Parts of some work, taken one by one by this thread and by helpers of the pool. The caller never waits for a helper that
// has not begun, so a pool whose threads all wait cannot be locked up.
class Parts {
 public:
  Parts(int64_t count, std::function<void(int64_t)> part) : count_(count), part_(std::move(part)) {}

  void work() {
    for (int64_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) {
      part_(i);
      if (done_.fetch_add(1) + 1 == count_) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_done_.notify_all();
      }
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_.load() == count_; });
  }

 private:
  const int64_t count_;
  const std::function<void(int64_t)> part_;
  std::atomic<int64_t> next_{0}, done_{0};
  std::mutex mutex_;
  std::condition_variable all_done_;
};

// Runs all parts, on several threads where that pays: to wake one and to wait for it can take a tenth of a millisecond, most
// of all where two virtual cores share a real one. `nanoseconds`: roughly what all parts take on one thread.
inline void run_parts(xla::ffi::ThreadPool pool, int64_t count, double nanoseconds, std::function<void(int64_t)> part) {
  constexpr double kSaved = 1e5;
  const int64_t threads = std::min<int64_t>(pool.num_threads(), count);
  if (threads <= 1 || nanoseconds * (1 - 1.0 / static_cast<double>(threads)) < kSaved) {
    for (int64_t i = 0; i < count; ++i) part(i);
    return;
  }
  auto parts = std::make_shared<Parts>(count, std::move(part));
  for (int64_t i = 1; i < threads; ++i) pool.Schedule([parts] { parts->work(); });
  parts->work();
  parts->wait();
}

constexpr int kMultiple = 16;  // as many features as have vector lanes side by side

// Ends of ranges of features with about the same work: an entry each, and cost_per_feature; multiples of kMultiple features
// from `first` on.
inline std::vector<int> cut(const int32_t* ptr, int first, int last, int64_t cost_per_feature, int64_t count) {
  std::vector<int> ends;
  const int64_t total = ptr[last] - ptr[first] + cost_per_feature * (last - first);
  for (int j = first + kMultiple; j < last; j += kMultiple)
    if ((ptr[j] - ptr[first] + cost_per_feature * (j - first)) * count >= total * static_cast<int64_t>(ends.size() + 1))
      ends.push_back(j);
  ends.push_back(last);
  return ends;
}

}  // namespace bayesfm
