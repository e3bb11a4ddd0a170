// thrust/sort.h: of device memory, ascending.
#pragma once
#include <algorithm>
#include "execution_policy.h"

namespace thrust {
template <class T> void sort(Device, T* begin, T* end) {
    emulated::Lock lock;
    emulated::stream_add(nullptr, [=] { std::sort(begin, end); });
}
}  // namespace thrust
