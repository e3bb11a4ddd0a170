// whole.cu: the tests that include the whole program, as one program (parts.cu says how and why).
//     whole test_gptq             only that file's tests; any other word: the tests whose name contains it
#include <functional>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include "../data/export.h"
#include "../data/sha256.h"
#include "../quant/rotation.cuh"
#include "awq_layer.h"
#include "golden.h"
#include "matrix.h"
#include "moe_layer.h"
#include "rptq_layer.h"
#include "small_model.h"
#include "temp.h"
#include "test.h"

namespace test_kernels {
#include "test_kernels.cu"
}
namespace test_model {
#include "test_model.cu"
}
namespace test_moe {
#include "test_moe.cu"
}
namespace test_moe_methods {
#include "test_moe_methods.cu"
}
namespace test_moe_pairs {
#include "test_moe_pairs.cu"
}
namespace test_moe_rotation {
#include "test_moe_rotation.cu"
}
namespace test_gptq {
#include "test_gptq.cu"
}
namespace test_awq {
#include "test_awq.cu"
}
namespace test_awq_golden {
#include "test_awq_golden.cu"
}
namespace test_smoothquant {
#include "test_smoothquant.cu"
}
namespace test_billm {
#include "test_billm.cu"
}
namespace test_flow_of_a_layer {
#include "test_flow_of_a_layer.cu"
}
namespace test_rotation {
#include "test_rotation.cu"
}
namespace test_rotation_options {
#include "test_rotation_options.cu"
}
namespace test_rptq {
#include "test_rptq.cu"
}
namespace test_rptq_places {
#include "test_rptq_places.cu"
}
namespace test_rptq_golden {
#include "test_rptq_golden.cu"
}
namespace test_export {
#include "test_export.cu"
}
namespace test_methods {
#include "test_methods.cu"
}
namespace test_together {
#include "test_together.cu"
}
namespace test_progress {
#include "test_progress.cu"
}
namespace test_choice {
#include "test_choice.cu"
}
#ifndef EMULATED
namespace test_eval {
#include "test_eval.cu"
}
#endif
namespace test_tiny {
#include "test_tiny.cu"
}
