# cmake -D executable=E -D filter=F -D boot=B -D run=R -D results=DIR -D list=FILE -P list_cases.cmake
#
# Writes FILE, which ctest includes: a test for each case of the GoogleTest program E that passes the filter F.
# The test shows what the boot B stored.
execute_process(
  COMMAND "${executable}" --gtest_list_tests "--gtest_filter=${filter}"
  OUTPUT_VARIABLE lines
  COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "[[;]" "" lines "${lines}")
string(REPLACE "\n" ";" lines "${lines}")
set(suite "")
set(script "")
foreach(line IN LISTS lines)
  if(line MATCHES "^([^ ]+\\.)( |$)")
    set(suite "${CMAKE_MATCH_1}")
  elseif(line MATCHES "^  ([^ ]+)")
    set(case "${suite}${CMAKE_MATCH_1}")
    if(case MATCHES "DISABLED_")
      continue()
    endif()
    set(name "[==[kernel.${boot}.${case}]==]")
    string(APPEND script "add_test(${name} [==[${run}]==] --report [==[${results}]==] [==[${case}]==])\n"
           "set_tests_properties(${name} PROPERTIES LABELS kernel FIXTURES_REQUIRED kernel.${boot} "
           "SKIP_RETURN_CODE 77 TIMEOUT 60)\n")
  endif()
endforeach()
if(NOT script)
  message(FATAL_ERROR "${executable} lists no cases")
endif()
file(WRITE "${list}" "${script}")
