// parts.cu: the tests of what stands below the model, as one program, so that the compiler sees the sources once instead of once a
// test file. Each file's names live in a namespace of its own, and what the files include is included here first, outside of it.
//     parts test_json             only that file's tests; any other word: the tests whose name contains it
//     make build/cpu-BF16/test_json   a file by itself, quicker while one works on it
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
#include "../cuda/attention.cuh"
#include "../cuda/flow_grid.cuh"
#include "../cuda/gemm.cuh"
#include "../cuda/hadamard.cuh"
#include "../cuda/linalg.cuh"
#include "../data/csv.h"
#include "../data/export.h"
#include "../data/json.h"
#include "../data/lines.h"
#include "../data/numpy_random.h"
#include "../data/packed.h"
#include "../data/quantized.h"
#include "../data/random.h"
#include "../data/safetensors.h"
#include "../data/save.h"
#include "../data/sha256.h"
#include "../data/token_ids.h"
#include "../eval/mmlu.h"
#include "../quant/learn_rotation.cuh"
#include "../tokenizer/bpe.h"
#include "products.h"
#include "temp.h"
#include "test.h"

#ifdef EMULATED
#include "test_emulator.cu"  // in no namespace: what it declares extern __shared__ is defined outside of any
#endif
namespace test_gemm {
#include "test_gemm.cu"
}
namespace test_linalg {
#include "test_linalg.cu"
}
namespace test_hadamard {
#include "test_hadamard.cu"
}
namespace test_flow_grid {
#include "test_flow_grid.cu"
}
namespace test_learn_rotation {
#include "test_learn_rotation.cu"
}
namespace test_attention {
#include "test_attention.cu"
}
#ifndef EMULATED  // what launches no kernel is the same there
namespace test_tile_trap {
#include "test_tile_trap.cu"
}
namespace test_json {
#include "test_json.cu"
}
namespace test_safetensors {
#include "test_safetensors.cu"
}
namespace test_packed {
#include "test_packed.cu"
}
namespace test_data {
#include "test_data.cu"
}
namespace test_save {
#include "test_save.cu"
}
namespace test_tokenizer {
#include "test_tokenizer.cu"
}
namespace test_prompts {
#include "test_prompts.cu"
}
#endif
