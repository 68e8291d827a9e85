# Installs BUILD_DIR into STAGED and moves the result to PREFIX.
file(REMOVE_RECURSE "${STAGED}" "${PREFIX}")
execute_process(
  COMMAND "${CMAKE_COMMAND}" --install "${BUILD_DIR}" --config "${CONFIG}" --prefix "${STAGED}"
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "cmake --install failed")
endif()
cmake_path(GET PREFIX PARENT_PATH parent)
file(MAKE_DIRECTORY "${parent}")
file(RENAME "${STAGED}" "${PREFIX}")
