// Owns: reading JavaScript arguments and throwing typed errors.
// Invariant: nothing here trusts its input: wrong types, detached buffers, getters that throw and
// numbers out of range all end as a pending JavaScript exception and `false`.
#pragma once
#include <napi.h>

#include <string>

#include "../kernels/backend.h"

namespace tesra {

// The `code` of JavaScript errors. Kernel codes map to the first seven.
const char* code_name(int code);

// An Error with code, op (when not empty) and opIndex (when >= 0).
Napi::Error make_error(Napi::Env env, const char* code, const std::string& message,
                       const std::string& op = "", int op_index = -1);
void throw_error(Napi::Env env, const char* code, const std::string& message);
void throw_error(Napi::Env env, const tesra_error& error);

struct View {
  uint8_t* data = nullptr;
  size_t length = 0;  // elements
  size_t bytes = 0;
  napi_typedarray_type type = napi_uint8_array;
};

// A typed array of one of the types in `accept` (NULL-terminated list of names comes from the
// type itself). `elements` = SIZE_MAX accepts any length.
bool read_view(Napi::Env env, Napi::Value value, const char* name, napi_typedarray_type type,
               size_t elements, View* out);
bool read_any_view(Napi::Env env, Napi::Value value, const char* name, View* out);
bool overlap(const View& a, const View& b);

bool read_object(Napi::Env env, Napi::Value value, const char* name, Napi::Object* out);
bool read_property(Napi::Env env, Napi::Object object, const char* key, Napi::Value* out);
bool read_integer(Napi::Env env, Napi::Value value, const char* name, double low, double high,
                  double* out);
bool read_number(Napi::Env env, Napi::Value value, const char* name, double* out);
bool read_string(Napi::Env env, Napi::Value value, const char* name, size_t most, std::string* out);
// Property forms; `fallback` is used when the property is undefined.
bool integer_property(Napi::Env env, Napi::Object o, const char* key, double low, double high,
                      const double* fallback, double* out);
bool number_property(Napi::Env env, Napi::Object o, const char* key, const double* fallback,
                     double* out);
bool flag_property(Napi::Env env, Napi::Object o, const char* key, bool* out);
// A property that is a bigint or an integer number from 0 to `high`.
bool uint64_property(Napi::Env env, Napi::Object o, const char* key, uint64_t high, uint64_t* out);
// { m, n, k } from `low` to 2^30.
bool read_dims(Napi::Env env, Napi::Value value, double low, int32_t* m, int32_t* n, int32_t* k);

}  // namespace tesra
