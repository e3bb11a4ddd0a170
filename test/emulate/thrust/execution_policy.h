// thrust/execution_policy.h: the device; its work goes to the default stream.
#pragma once
#include "../cuda_runtime.h"

namespace thrust {
struct Device {};
constexpr Device device;
}  // namespace thrust
