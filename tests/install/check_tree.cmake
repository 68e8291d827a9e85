# The installed tree has every public header and no path of the machine that built it.
set(count 0)
foreach(module IN ITEMS timing hooks asio_pulse bpf)
  file(
    GLOB_RECURSE headers
    RELATIVE "${SOURCE_DIR}/${module}"
    "${SOURCE_DIR}/${module}/include/*.hpp"
    "${SOURCE_DIR}/${module}/include/*.h")
  if(NOT headers)
    message(SEND_ERROR "no header found in ${module}")
  endif()
  foreach(header IN LISTS headers)
    if(NOT EXISTS "${PREFIX}/${header}")
      message(SEND_ERROR "${header} was not installed")
    endif()
    math(EXPR count "${count} + 1")
  endforeach()
endforeach()

file(GLOB_RECURSE texts "${PREFIX}/*.cmake" "${PREFIX}/*.pc" "${PREFIX}/*.hpp" "${PREFIX}/*.h")
foreach(text IN LISTS texts)
  file(READ "${text}" content)
  foreach(path IN ITEMS "${SOURCE_DIR}" "${BUILD_DIR}" "${STAGED}")
    string(FIND "${content}" "${path}" position)
    if(NOT position EQUAL -1)
      message(SEND_ERROR "${text} names ${path}")
    endif()
  endforeach()
endforeach()
message(STATUS "${count} headers installed")
