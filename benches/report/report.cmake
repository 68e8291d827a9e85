# SPDX-License-Identifier: BSL-1.0
# Joins the report's page from its parts: template.html with /*CSS*/ replaced by all .css files and
# /*JS*/ by all .js files, in the order of their names. /*RESULT*/ stays: the harness fills it in.
# check.py joins them by the same rule.
#   include(benches/report/report.cmake)
#   asio_pulse_report_page("${CMAKE_CURRENT_BINARY_DIR}/report.html")
set(ASIO_PULSE_REPORT_DIR "${CMAKE_CURRENT_LIST_DIR}")

function(asio_pulse_report_page output)
  set(template "${ASIO_PULSE_REPORT_DIR}/template.html")
  file(READ "${template}" page)
  foreach(kind IN ITEMS css js)
    file(GLOB parts CONFIGURE_DEPENDS "${ASIO_PULSE_REPORT_DIR}/*.${kind}")
    list(SORT parts)
    # A change of a part must configure again, as the page is joined then.
    set_property(
      DIRECTORY
      APPEND
      PROPERTY CMAKE_CONFIGURE_DEPENDS "${template}" ${parts})
    set(text "")
    foreach(part IN LISTS parts)
      file(READ "${part}" one)
      string(APPEND text "${one}")
    endforeach()
    string(TOUPPER "/*${kind}*/" placeholder)
    string(REPLACE "${placeholder}" "${text}" page "${page}")
  endforeach()
  # Writes only what has changed, so that nothing is built again for nothing.
  set(old "")
  if(EXISTS "${output}")
    file(READ "${output}" old)
  endif()
  if(NOT "${old}" STREQUAL "${page}")
    file(WRITE "${output}" "${page}")
  endif()
endfunction()
