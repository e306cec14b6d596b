// torch's parallel loop on threads that ThreadSanitizer sees. Preloaded, it takes the place of the function of the same
// name in libtorch, whose OpenMP threads wait for each other in ways unknown to the sanitizer: every loop would be a
// race.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

// torch's own function. Python loads libtorch so that its names are not visible here.
static int64_t number_of_threads() {
  static void* const torch = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD);
  static const auto get = reinterpret_cast<int32_t (*)(uint32_t*)>(dlsym(torch, "torch_get_num_threads"));
  uint32_t count = 1;
  get(&count);
  return count;
}

extern "C" int32_t torch_parallel_for(
    int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  if (begin >= end) {
    return 0;
  }
  const int64_t count = std::min(number_of_threads(), (end - begin + grain - 1) / grain);
  const int64_t share = (end - begin + count - 1) / count;
  std::vector<std::thread> threads;
  for (int64_t first = begin; first < end; first += share) {
    threads.emplace_back(body, first, std::min(first + share, end), context);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return 0;
}
