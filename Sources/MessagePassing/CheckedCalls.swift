// The second floor: MPI functions with Swift arguments; codes become errors, and every call is
// checked to come from the right thread. MPI 3.1 section numbers beside each group.

import COpenMPI

/// MPI calls whose codes are checked. Only this module's API calls these.
enum Checked {
  /// Throws if `code` is not MPI_SUCCESS.
  static func check(_ code: Int32, _ call: StaticString) throws(MPIError) {
    if code == w2svd_mpi_success { return }
    var text = [CChar](repeating: 0, count: Int(w2svd_mpi_max_error_string) + 1)
    var length: Int32 = 0
    unsafe MPI_Error_string(code, &text, &length)
    throw MPIError(
      code: .callFailed(code), call: "\(call)", rank: worldRankIfStarted,
      message: string(text, length))
  }

  // MARK: Environment (§8.7)

  static func initialize() throws(MPIError) {
    var provided: Int32 = 0
    try check(
      unsafe MPI_Init_thread(nil, nil, w2svd_mpi_thread_serialized, &provided), "MPI_Init_thread")
    guard provided >= w2svd_mpi_thread_serialized else {
      throw MPIError(
        code: .unsupported, call: "MPI_Init_thread", rank: -1,
        message:
          "this MPI offers thread level \(provided); SERIALIZED is needed: rebuild MPI with threads"
      )
    }
  }

  static func finalize() throws(MPIError) {
    MPIThread.preconditionIsCurrent()
    try check(MPI_Finalize(), "MPI_Finalize")
  }

  static func libraryVersion() throws(MPIError) -> String {
    var text = [CChar](repeating: 0, count: Int(w2svd_mpi_max_library_version_string) + 1)
    var length: Int32 = 0
    try check(unsafe MPI_Get_library_version(&text, &length), "MPI_Get_library_version")
    return string(text, length)
  }

  // MARK: Communicators (§6.4)

  static func rank(in communicator: MPI_Comm) throws(MPIError) -> Int {
    MPIThread.preconditionIsCurrent()
    var rank: Int32 = -1
    try check(unsafe MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank")
    return Int(rank)
  }

  static func size(of communicator: MPI_Comm) throws(MPIError) -> Int {
    MPIThread.preconditionIsCurrent()
    var size: Int32 = 0
    try check(unsafe MPI_Comm_size(communicator, &size), "MPI_Comm_size")
    return Int(size)
  }

  /// Errors come back as codes on this communicator and on those made from it (§8.3).
  static func returnErrors(on communicator: MPI_Comm) throws(MPIError) {
    MPIThread.preconditionIsCurrent()
    try check(
      unsafe MPI_Comm_set_errhandler(communicator, w2svd_mpi_errors_return()),
      "MPI_Comm_set_errhandler")
  }

  static func split(
    _ communicator: MPI_Comm, color: Int32, key: Int32
  ) throws(MPIError) -> MPI_Comm {
    MPIThread.preconditionIsCurrent()
    var result = unsafe w2svd_mpi_comm_null()
    try check(unsafe MPI_Comm_split(communicator, color, key, &result), "MPI_Comm_split")
    return unsafe existing(result, "MPI_Comm_split")
  }

  static func splitByNode(_ communicator: MPI_Comm) throws(MPIError) -> MPI_Comm {
    MPIThread.preconditionIsCurrent()
    var result = unsafe w2svd_mpi_comm_null()
    try check(
      unsafe MPI_Comm_split_type(
        communicator, w2svd_mpi_comm_type_shared, 0, w2svd_mpi_info_null(), &result),
      "MPI_Comm_split_type")
    return unsafe existing(result, "MPI_Comm_split_type")
  }

  static func duplicate(_ communicator: MPI_Comm) throws(MPIError) -> MPI_Comm {
    MPIThread.preconditionIsCurrent()
    var result = unsafe w2svd_mpi_comm_null()
    try check(unsafe MPI_Comm_dup(communicator, &result), "MPI_Comm_dup")
    return unsafe existing(result, "MPI_Comm_dup")
  }

  static func free(_ communicator: MPI_Comm) throws(MPIError) {
    MPIThread.preconditionIsCurrent()
    var handle: MPI_Comm? = unsafe communicator
    try check(unsafe MPI_Comm_free(&handle), "MPI_Comm_free")
  }

  /// One integer from every rank, by rank (§5.7); for set-up only, since MPI waits by spinning.
  static func allGather(
    _ value: Int64, count: Int, over communicator: MPI_Comm
  ) throws(MPIError) -> [Int64] {
    MPIThread.preconditionIsCurrent()
    var own = value
    var all = [Int64](repeating: .min, count: count)
    try check(
      unsafe MPI_Allgather(
        &own, 1, w2svd_mpi_int64(), &all, 1, w2svd_mpi_int64(), communicator),
      "MPI_Allgather")
    return all
  }

  // MARK: Started messages (§3.7)

  static func startSend(
    _ bytes: UnsafeRawBufferPointer, to peer: Int, tag: Int, over communicator: MPI_Comm
  ) throws(MPIError) -> MPI_Request {
    MPIThread.preconditionIsCurrent()
    var request = unsafe w2svd_mpi_request_null()
    try check(
      unsafe MPI_Isend(
        bytes.baseAddress, int(bytes.count), w2svd_mpi_byte(), int(peer), int(tag), communicator,
        &request),
      "MPI_Isend")
    return unsafe existing(request, "MPI_Isend")
  }

  static func startReceive(
    into bytes: UnsafeMutableRawBufferPointer, from peer: Int, tag: Int,
    over communicator: MPI_Comm
  ) throws(MPIError) -> MPI_Request {
    MPIThread.preconditionIsCurrent()
    var request = unsafe w2svd_mpi_request_null()
    try check(
      unsafe MPI_Irecv(
        bytes.baseAddress, int(bytes.count), w2svd_mpi_byte(), int(peer), int(tag), communicator,
        &request),
      "MPI_Irecv")
    return unsafe existing(request, "MPI_Irecv")
  }

  /// nil while under way; else how many bytes a receive got (a send: unspecified).
  static func test(_ request: MPI_Request) throws(MPIError) -> Int? {
    MPIThread.preconditionIsCurrent()
    var handle: MPI_Request? = unsafe request
    var isDone: Int32 = 0
    var status = MPI_Status()
    try check(unsafe MPI_Test(&handle, &isDone, &status), "MPI_Test")
    if isDone == 0 { return nil }
    var count: Int32 = 0
    try check(unsafe MPI_Get_count(&status, w2svd_mpi_byte(), &count), "MPI_Get_count")
    return Int(count)
  }

  // MARK: Parts

  /// A 64-bit count at MPI's 32-bit border.
  static func int(_ value: Int) -> Int32 {
    guard let narrow = Int32(exactly: value) else {
      preconditionFailure("\(value) does not fit MPI's int, at most \(Int32.max)")
    }
    return narrow
  }

  private static var worldRankIfStarted: Int {
    var isInitialized: Int32 = 0
    var isFinalized: Int32 = 0
    var rank: Int32 = -1
    unsafe MPI_Initialized(&isInitialized)
    unsafe MPI_Finalized(&isFinalized)
    if isInitialized != 0 && isFinalized == 0 {
      unsafe MPI_Comm_rank(w2svd_mpi_comm_world(), &rank)
    }
    return Int(rank)
  }

  private static func existing(_ handle: OpaquePointer?, _ call: StaticString) -> OpaquePointer {
    guard let handle = unsafe handle else { preconditionFailure("\(call) gave a null handle") }
    return unsafe handle
  }

  /// Some of MPI's lengths count the closing zero.
  private static func string(_ text: [CChar], _ length: Int32) -> String {
    let bytes = text.prefix(Int(length)).prefix { $0 != 0 }
    return String(decoding: bytes.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
