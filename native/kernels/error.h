// Owns: error codes and the error record that every kernel entry point fills.
// Invariant: a function returning int returns TESRA_OK or the same code that it stored in the record.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum tesra_code {
  TESRA_OK = 0,
  TESRA_E_ARGUMENT = 1,     // a value outside its documented range
  TESRA_E_SHAPE = 2,        // shapes that do not fit each other or the operation
  TESRA_E_MEMORY = 3,       // host or device memory exhausted
  TESRA_E_UNSUPPORTED = 4,  // a valid request that this back end has no kernel for
  TESRA_E_DEVICE = 5,       // the driver failed; its words are in the message
  TESRA_E_UNAVAILABLE = 6,  // no such device, or no driver
  TESRA_E_CAPACITY = 7,     // the caller's output buffer is too small; nothing else is wrong
};

typedef struct tesra_error {
  int32_t code;
  char message[508];  // one sentence, NUL-terminated, never empty when code != TESRA_OK
} tesra_error;

#ifdef __cplusplus
}
#endif
