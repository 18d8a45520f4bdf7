#!/usr/bin/env bash
# compare.sh PEERS_DIR OUT.jsonl [--rounds N] [--time S] [--parts shm,over,tcp] [--peers LIST] [--sizes LIST]
#            [--over-sizes LIST] [--ranks LIST] [--ops LIST] [--dtype float32|bfloat16]
#
# ubccl (through its C interface) against the peers installed in PEERS_HOME (default PEERS_DIR). PEERS_DIR is the folder
# of their programs (src/setup.sh, src/gloo_bench.py). Parts: shm and tcp are two processes, each on its own CPU; over
# is more processes than CPUs (--ranks), over shared memory, each peer set to yield.
# Appends JSON lines to OUT, says on standard error what it does; `report.py OUT.jsonl` makes the tables.
#
# A round measures groups of sizes; for each, every program runs once for a few seconds, one right after the
# other, in an order that turns from round to round: whatever the machine does meanwhile, it does to all. Ours runs
# twice, as "default" and as "again": how far these two differ is how far any two may by chance. Each run is tagged with
# how long a cache line takes between the two CPUs before and after (near_ns), because a virtual machine's CPUs move, and
# the same program takes 1.5 to 5 times as long when they are far apart.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
usage="usage: compare.sh PEERS_DIR OUT.jsonl [--rounds N] [--time S] [--parts shm,over,tcp] [--peers LIST] [--sizes LIST] \
[--over-sizes LIST] [--ranks LIST] [--ops LIST] [--dtype NAME]"
die() { echo "compare.sh: $*" >&2; exit 2; }

[ $# -ge 2 ] || die "$usage"
peers_dir=$1 out=$2; shift 2
rounds=10 time=0.03 parts=shm,over peers=mpich,openmpi,impi,oneccl,gloo dtype=float32 ranks=8,16,64
ops=allreduce,allreduce_inplace,allgather,reduce_scatter,broadcast,alltoall,barrier,pingpong
sizes=8,64,1024,8192,65536,524288,1048576,4194304,16777216,67108864 over_sizes=8,65536,4194304
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || die "$1 needs a value; $usage"
  case $1 in
    --rounds) rounds=$2 ;; --time) time=$2 ;; --parts) parts=$2 ;; --peers) peers=$2 ;; --ranks) ranks=$2 ;;
    --sizes) sizes=$2 ;; --over-sizes) over_sizes=$2 ;; --ops) ops=$2 ;; --dtype) dtype=$2 ;;
    *) die "unknown option $1; $usage" ;;
  esac
  shift 2
done
# No peer's program has another type.
[ "$dtype" = float32 ] || peers=

[ -f "$peers_dir/src/setup.sh" ] || die "$peers_dir is not the peers' folder: it has no src/setup.sh"
peers_dir=$(cd "$peers_dir" && pwd)
home=${PEERS_HOME:-$peers_dir}
[ ! -d "$home" ] || home=$(cd "$home" && pwd)
[ -x "$home/bin/limits" ] || die "no peers in $home; install them (1 GB, with gloo 5.5 GB):
  PEERS_HOME=$home bash $peers_dir/src/setup.sh mpich openmpi impi oneccl gloo"
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT

build() (
  cd "$root"
  cargo build --release -p ubccl-ffi --lib
  release=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
  "${CC:-cc}" -std=c11 -O2 -Iinclude -o "$scratch/ubccl_bench" benches/peers/ubccl_bench.c \
    "$release/libubccl.so" -Wl,-rpath,"$release"
)

is_there() {
  case $1 in
    gloo) [ -x "$home/venv-torch/bin/python" ] ;;
    oneccl) [ -x "$home/bin/ccl_bench" ] ;;
    *) [ -x "$home/bin/mpi_bench_$1" ] ;;
  esac
}

# What runs over a transport: lines "peer note", ours first.
contestants() {
  echo "ubccl default"
  echo "ubccl again"
  local peer
  for peer in ${peers//,/ }; do
    is_there "$peer" || continue
    case $1/$peer in
      over/mpich) echo "mpich posix_coll=mpir" ;; # its shared-memory collectives spin and never yield
      over/openmpi) echo "openmpi yield_when_idle" ;;
      over/impi) echo "impi thread_yield2" ;;
      over/oneccl) echo "oneccl yield" ;;
      shm/gloo | over/gloo | tcp/oneccl) ;; # gloo has no shared memory; oneCCL here no TCP of its own
      shm/openmpi) echo "openmpi default"; echo "openmpi coll_sm" ;;
      shm/*) echo "$peer default" ;;
      tcp/gloo) echo "gloo default" ;;
      tcp/openmpi) echo "openmpi btl-tcp" ;;
      tcp/*) echo "$peer ofi-tcp" ;;
    esac
  done
}

# Sets `command`: the environment that makes a peer use this transport, its launcher, its program.
prepare() {
  local part=$1 peer=$2 note=$3 n=$4 venv=$home/venv-$2
  local mpich=("$venv/bin/mpiexec" -n "$n" "$home/bin/mpi_bench_mpich" --peer=mpich) mpich_over=() collective
  local map=(--bind-to none)
  [ "$n" -le "$(nproc)" ] || map=(--map-by :OVERSUBSCRIBE --bind-to none)
  local openmpi=(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    "$venv/bin/mpiexec" "${map[@]}" -n "$n" "$home/bin/mpi_bench_openmpi" --peer=openmpi)
  local intel=(I_MPI_ROOT="$venv" LD_LIBRARY_PATH="$venv/lib")
  local impi=(I_MPI_PIN=0 "${intel[@]}" "$venv/bin/mpiexec" -n "$n" "$home/bin/mpi_bench_impi" --peer=impi)
  local oneccl=(CCL_ROOT="$venv" "${intel[@]}" "$venv/bin/mpiexec" -n "$n" "$home/bin/ccl_bench")
  local loopback=(FI_PROVIDER=tcp FI_TCP_IFACE=lo)
  for collective in ALLREDUCE BARRIER BCAST REDUCE; do
    mpich_over+=("MPIR_CVAR_${collective}_POSIX_INTRA_ALGORITHM=mpir")
  done
  command=(env)
  case $part/$peer/$note in
    */ubccl/*) command+=("$scratch/ubccl_bench" --ranks="$n" --dtype="$dtype") ;;
    shm/mpich/*) command+=("${mpich[@]}") ;;
    shm/openmpi/default) command+=("${openmpi[@]}") ;;
    shm/openmpi/coll_sm) command+=(OMPI_MCA_coll_sm_priority=95 "${openmpi[@]}") ;;
    shm/impi/*) command+=(I_MPI_FABRICS=shm "${impi[@]}") ;;
    shm/oneccl/*) command+=("${oneccl[@]}") ;;
    over/mpich/*) command+=("${mpich_over[@]}" "${mpich[@]}") ;;
    over/openmpi/*) command+=(OMPI_MCA_mpi_yield_when_idle=1 "${openmpi[@]}") ;;
    over/impi/*) command+=(I_MPI_FABRICS=shm I_MPI_THREAD_YIELD=2 "${impi[@]}") ;;
    over/oneccl/*) command+=(CCL_YIELD=sched_yield I_MPI_THREAD_YIELD=2 "${oneccl[@]}") ;;
    tcp/mpich/*) command+=(MPIR_CVAR_NOLOCAL=1 MPIR_CVAR_CH4_NETMOD=ofi "${loopback[@]}" "${mpich[@]}") ;;
    tcp/openmpi/*) command+=(OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo "${openmpi[@]}") ;;
    tcp/impi/*) command+=(I_MPI_COLL_INTRANODE=pt2pt I_MPI_FABRICS=ofi "${loopback[@]}" "${impi[@]}") ;;
    tcp/gloo/*) command+=(GLOO_SOCKET_IFNAME=lo "$home/venv-torch/bin/python" "$peers_dir/src/gloo_bench.py" --ranks 2) ;;
    *) die "nothing known about $1 $2 $3" ;;
  esac
}

near() { "$home/bin/limits" 0 near; }

# One program, one group of sizes.
measure() {
  local part=$1 peer=$2 note=$3 group=$4 round=$5 n=$6 asked=$7 pin=1 transport=$1 limit=120 before after
  [ "$peer" = gloo ] && pin=0 # it works with a second thread
  [ "$peer$note" != openmpicoll_sm ] || asked=${asked/,pingpong/} # it is the same without
  if [ "$part" = over ]; then
    pin=0 transport=shm limit=400 asked=${asked/,pingpong/}
  fi
  prepare "$part" "$peer" "$note" "$n"
  before=$(near)
  if ! timeout "$limit" "${command[@]}" --transport="$transport" --pin="$pin" --sizes="$group" --ops="$asked" \
    --time="$time" --rep="$round" --note="$note" > "$scratch/lines" 2> "$scratch/errors" < /dev/null; then
    printf '{"peer":"%s","transport":"%s","ranks":%d,"rep":%d,"note":"%s","error":"it failed or took over %d s"}\n' \
      "$peer" "$transport" "$n" "$round" "$note" "$limit" >> "$out"
    echo "  $peer $note failed: $(tail -n 1 "$scratch/errors" | cut -c 1-200)" >&2
  fi
  after=$(near)
  { grep '^{' "$scratch/lines" || true; } | sed "s/}\$/,\"near_ns\":[$before,$after]}/" >> "$out"
  echo "$(date +%T) round $round $part $n ranks $peer $note, sizes $group: cache line $before ns, then $after ns" >&2
}

# Sizes to 8 KiB, to 1 MiB, and each larger one alone: runs are short, or the CPUs move within them.
groups() {
  tr , '\n' <<< "$1" | awk '{ g = $1 <= 8192 ? 1 : $1 <= 1048576 ? 2 : $1; if (!(g in list)) order[++n] = g
    list[g] = list[g] (list[g] ? "," : "") $1 } END { for (i = 1; i <= n; i++) print list[order[i]] }'
}

build
for peer in ${peers//,/ }; do
  is_there "$peer" || echo "$peer is not installed: PEERS_HOME=$home bash $peers_dir/src/setup.sh $peer" >&2
done
awk '$1 > 0.5 { print "compare.sh: the machine is busy (load " $1 "); numbers will be noisy" }' /proc/loadavg >&2
# A file that has rounds already gets further ones.
touch "$out"
done=$({ grep -o '"rep":[0-9]*' "$out" || true; } | cut -d : -f 2 | sort -n | tail -n 1)
turn=${done:-0}
for round in $(seq $((${done:-0} + 1)) $((${done:-0} + rounds))); do
  for part in ${parts//,/ }; do
    mapfile -t all < <(contestants "$part")
    counts=2 part_sizes=$sizes
    [ "$part" != over ] || counts=${ranks//,/ } part_sizes=$over_sizes
    for n in $counts; do
      asked_of_group=$ops
      for group in $(groups "$part_sizes"); do
        for ((i = 0; i < ${#all[@]}; i++)); do
          read -r peer note <<< "${all[(i + turn) % ${#all[@]}]}"
          measure "$part" "$peer" "$note" "$group" "$round" "$n" "$asked_of_group"
        done
        asked_of_group=$(tr , '\n' <<< "$ops" | { grep -vx barrier || true; } | paste -sd ,) # it has no sizes
        turn=$((turn + 1))
      done
    done
  done
done
