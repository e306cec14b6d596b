// An importable module without functions: importing it loads the library, whose static initialisers register the
// operators. Its constants tell what the library holds.
#pragma once

#include <Python.h>

#include <initializer_list>
#include <utility>

namespace dcnv3 {

inline PyObject* make_module(
    PyModuleDef* definition, std::initializer_list<std::pair<const char*, const char*>> constants) {
  PyObject* result = PyModule_Create(definition);
  if (result == nullptr) {
    return nullptr;
  }
  for (const auto& [name, value] : constants) {
    if (PyModule_AddStringConstant(result, name, value) != 0) {
      Py_DECREF(result);
      return nullptr;
    }
  }
  return result;
}

}  // namespace dcnv3
