//! One function's instance of a module, kept between calls by one shard.

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;
use ceto_model::value::canonical;
use wasmi::{
    Error, ExternType, Func, Instance, Linker, Memory, Module, Store, StoreLimits, StoreLimitsBuilder,
    TrapCode, Val, ValType,
};

use super::meter::Meter;
use super::native::Passing;
use crate::error::FunctionError;
use crate::language::Machine;
use crate::limits::{WASM_FUEL_MAX, WASM_MEMORY_KEPT_MAX, WASM_MEMORY_MAX, WASM_TABLE_MAX};

const PAGE_BYTES: usize = 64 << 10;

/// Tables of one module; each may have [`WASM_TABLE_MAX`] entries.
const TABLES_MAX: usize = 4;

const MEMORY: &str = "memory";
const ABI: &str = "_scylla_abi";
const ALLOCATE: &str = "_scylla_malloc";
const FREE: &str = "_scylla_free";

/// What stands for null in the place of a size and an address.
const NULL: i64 = -1 << 32;

/// Who makes room for what is passed in memory.
enum Room {
    /// Version 1: the host. What it has added to the memory so far, of which only the last is used.
    Pages { address: usize, size: usize },
    /// Version 2: the module.
    Functions { allocate: Func, free: Func },
}

/// What a function needs that has something in memory.
struct Exchange {
    memory: Memory,
    room: Room,
}

/// See the module.
pub(crate) struct WasmInstance {
    module: Module,
    store: Store<StoreLimits>,
    meter: Meter,
    function: Func,
    arguments: Vec<Passing>,
    result: Passing,
    exchange: Option<Exchange>,
    /// The memory, when it is exported: an instance that has become large is not kept.
    memory: Option<Memory>,
}

impl WasmInstance {
    /// An instance that can call `definition`.
    pub(super) fn new(
        module: Module,
        definition: &FunctionDefinition,
        meter: Meter,
    ) -> Result<WasmInstance, FunctionError> {
        // How large a memory has become is only known of one that is exported.
        let is_memory = |export: &wasmi::ExportType<'_>| {
            export.name() == MEMORY && matches!(export.ty(), ExternType::Memory(_))
        };
        let memories = usize::from(module.exports().any(|export| is_memory(&export)));
        let limits = StoreLimitsBuilder::new()
            .memory_size(WASM_MEMORY_MAX)
            .table_elements(WASM_TABLE_MAX)
            .tables(TABLES_MAX)
            .memories(memories)
            .instances(1)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(module.engine(), limits);
        store.limiter(|limits| limits);
        store.set_fuel(WASM_FUEL_MAX).map_err(|error| failed(&error))?;
        let instance = Linker::new(module.engine())
            .instantiate_and_start(&mut store, &module)
            .map_err(|error| no_instance(&error))?;
        let arguments: Vec<_> = definition
            .argument_types
            .iter()
            .map(|cql_type| Passing::of(cql_type, definition))
            .collect();
        let result = Passing::of(&definition.return_type, definition);
        let function = find_function(&instance, &store, definition, &arguments, result)?;
        let exchange = match arguments
            .iter()
            .chain([&result])
            .any(|passing| *passing == Passing::InMemory)
        {
            true => Some(find_exchange(&instance, &store)?),
            false => None,
        };
        let memory = instance.get_memory(&store, MEMORY);
        let size = memory.map_or(0, |memory| memory.data_size(&store));
        if size > WASM_MEMORY_KEPT_MAX {
            return Err(FunctionError::Body(format!(
                "the module's memory begins with {} KiB, and may begin with {} KiB",
                size / 1024,
                WASM_MEMORY_KEPT_MAX / 1024
            )));
        }
        Ok(WasmInstance {
            module,
            store,
            meter,
            function,
            arguments,
            result,
            exchange,
            memory,
        })
    }

    /// Arguments as numbers; None when one is null that the function is not called on.
    fn pass(&mut self, arguments: &[Option<Bytes>]) -> Result<Option<Vec<Val>>, FunctionError> {
        self.make_room(arguments)?;
        let mut used = 0;
        let mut values = Vec::with_capacity(arguments.len());
        for (passing, wire) in self.arguments.iter().zip(arguments) {
            values.push(match (passing, wire, &self.exchange) {
                (Passing::InMemory, Some(wire), Some(exchange)) => {
                    let place = exchange.put(&mut self.store, &mut self.meter, wire, &mut used)?;
                    Val::I64(place)
                }
                (Passing::InMemory, None, _) => Val::I64(NULL),
                (passing, Some(wire), _) => match passing.number(wire) {
                    Some(number) => number,
                    None => return Ok(None),
                },
                (_, None, _) => return Ok(None),
            });
        }
        Ok(Some(values))
    }

    /// Adds pages for the arguments of a call when there are too few.
    fn make_room(&mut self, arguments: &[Option<Bytes>]) -> Result<(), FunctionError> {
        let Some(Exchange {
            memory,
            room: Room::Pages { address, size },
        }) = &mut self.exchange
        else {
            return Ok(());
        };
        let wanted: usize = arguments.iter().flatten().map(|wire| room_of(wire)).sum();
        if wanted > *size {
            let pages = wanted.div_ceil(PAGE_BYTES);
            let before = memory.grow(&mut self.store, pages as u64);
            let before = before.map_err(|_| too_large())?;
            *address = before as usize * PAGE_BYTES;
            *size = pages * PAGE_BYTES;
        }
        Ok(())
    }

    /// The wire bytes of a result.
    fn take(&mut self, value: &Val) -> Result<Option<Vec<u8>>, FunctionError> {
        match (value, &self.exchange) {
            (Val::I64(place), Some(exchange)) if self.result == Passing::InMemory => {
                exchange.take(&mut self.store, &mut self.meter, *place)
            }
            _ => Ok(self.result.wire(value)),
        }
    }
}

impl Machine for WasmInstance {
    fn call(
        &mut self,
        definition: &FunctionDefinition,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, FunctionError> {
        self.meter.begin(&mut self.store)?;
        let Some(values) = self.pass(arguments)? else {
            return Ok(None);
        };
        let mut results = [Val::default_for_ty(self.result.wasm_type())];
        self.meter
            .run(&mut self.store, &self.function, &values, &mut results)?;
        let Some(wire) = self.take(&results[0])? else {
            return Ok(None);
        };
        let wire = canonical(&definition.return_type, &wire)
            .map_err(|error| FunctionError::Result(error.to_string()))?
            .into_owned();
        Ok(Some(wire.into()))
    }

    /// One that has become large is made anew, of the same code.
    fn can_be_kept(&mut self, definition: &FunctionDefinition) -> bool {
        let size = self.memory.map_or(0, |memory| memory.data_size(&self.store));
        if size <= WASM_MEMORY_KEPT_MAX {
            return true;
        }
        match WasmInstance::new(self.module.clone(), definition, self.meter.clone()) {
            Ok(new) => {
                *self = new;
                true
            }
            Err(_) => false,
        }
    }
}

impl Exchange {
    /// Writes an argument; `used` is what the arguments before it have taken of the pages.
    fn put(
        &self,
        store: &mut Store<StoreLimits>,
        meter: &mut Meter,
        wire: &[u8],
        used: &mut usize,
    ) -> Result<i64, FunctionError> {
        let address = match &self.room {
            Room::Pages { address, .. } => {
                let place = *address + *used;
                *used += room_of(wire);
                place
            }
            Room::Functions { allocate, .. } => {
                let size = i32::try_from(wire.len()).map_err(|_| too_large())?;
                let mut allocated = [Val::I32(0)];
                meter.run(store, allocate, &[Val::I32(size)], &mut allocated)?;
                let address = allocated[0].i32().unwrap_or(0);
                if address == 0 && size > 0 {
                    return Err(FunctionError::Failed(format!(
                        "the module's {ALLOCATE} has no room for an argument of {size} bytes"
                    )));
                }
                address.cast_unsigned() as usize
            }
        };
        if !wire.is_empty() {
            self.memory.write(&mut *store, address, wire).map_err(|_| {
                FunctionError::Failed(format!(
                    "the module's {ALLOCATE} returned the address {address}, which is not in its memory"
                ))
            })?;
        }
        Ok((wire.len() as i64) << 32 | address as i64)
    }

    /// Reads a result, and gives its room back.
    fn take(
        &self,
        store: &mut Store<StoreLimits>,
        meter: &mut Meter,
        place: i64,
    ) -> Result<Option<Vec<u8>>, FunctionError> {
        let (size, address) = (place >> 32, place & 0xffff_ffff);
        if size == -1 {
            return Ok(None);
        }
        let outside = || {
            FunctionError::Result(format!(
                "{size} bytes at the address {address} are not in the module's memory of {} bytes",
                self.memory.data_size(&*store)
            ))
        };
        let start = usize::try_from(address).map_err(|_| outside())?;
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| start.checked_add(size));
        let wire = end.and_then(|end| self.memory.data(&*store).get(start..end));
        let wire = wire.ok_or_else(outside)?.to_vec();
        if let Room::Functions { free, .. } = &self.room {
            meter.run(store, free, &[Val::I32(address as i32)], &mut [])?;
        }
        Ok(Some(wire))
    }
}

/// Bytes of the pages that one argument takes.
fn room_of(wire: &[u8]) -> usize {
    wire.len().next_multiple_of(8)
}

fn find_function(
    instance: &Instance,
    store: &Store<StoreLimits>,
    definition: &FunctionDefinition,
    arguments: &[Passing],
    result: Passing,
) -> Result<Func, FunctionError> {
    let name = &definition.name;
    let function = instance.get_func(store, name).ok_or_else(|| {
        FunctionError::Body(format!(
            "the module exports no function '{name}'; add (export \"{name}\" (func ...))"
        ))
    })?;
    let found = function.ty(store);
    let parameters: Vec<ValType> = arguments.iter().map(|passing| passing.wasm_type()).collect();
    let results = [result.wasm_type()];
    if found.params() == parameters && found.results() == results {
        return Ok(function);
    }
    let null = match definition.called_on_null {
        true => "CALLED",
        false => "RETURNS NULL",
    };
    Err(FunctionError::Body(format!(
        "the exported function '{name}' is {}, but {null} ON NULL INPUT and the CQL types ask for {}",
        signature(found.params(), found.results()),
        signature(&parameters, &results)
    )))
}

fn signature(parameters: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| {
        let names: Vec<String> = types
            .iter()
            .map(|wasm_type| format!("{wasm_type:?}").to_lowercase())
            .collect();
        names.join(", ")
    };
    format!("({}) -> ({})", list(parameters), list(results))
}

fn find_exchange(instance: &Instance, store: &Store<StoreLimits>) -> Result<Exchange, FunctionError> {
    let missing = |what: &str| {
        FunctionError::Body(format!(
            "the module exports no {what}, which a function needs whose arguments or result are passed in memory"
        ))
    };
    let memory = instance
        .get_memory(store, MEMORY)
        .ok_or_else(|| missing("memory 'memory'"))?;
    let global = instance
        .get_global(store, ABI)
        .and_then(|global| global.get(store).i32())
        .ok_or_else(|| missing(&format!("global '{ABI}' of type i32")))?;
    let mut version = [0; 4];
    let read = memory.read(store, global.cast_unsigned() as usize, &mut version);
    let version = read.map(|()| u32::from_le_bytes(version)).map_err(|_| {
        FunctionError::Body(format!(
            "the global '{ABI}' is the address {}, which is not in the module's memory",
            global.cast_unsigned()
        ))
    })?;
    let room = match version {
        1 => Room::Pages { address: 0, size: 0 },
        2 => Room::Functions {
            allocate: *instance
                .get_typed_func::<i32, i32>(store, ALLOCATE)
                .map_err(|_| missing(&format!("function '{ALLOCATE}' (i32) -> (i32)")))?
                .func(),
            free: *instance
                .get_typed_func::<i32, ()>(store, FREE)
                .map_err(|_| missing(&format!("function '{FREE}' (i32) -> ()")))?
                .func(),
        },
        _ => {
            return Err(FunctionError::Body(format!(
                "the module says at '{ABI}' that it passes values by version {version}; there are 1 and 2"
            )));
        }
    };
    Ok(Exchange { memory, room })
}

/// The module has no instance within the limits.
fn no_instance(error: &Error) -> FunctionError {
    match failed(error) {
        FunctionError::Failed(text) => FunctionError::Body(format!(
            "no instance of the module can be made within its limits (a memory that is exported as '{MEMORY}', of {} KiB; {TABLES_MAX} \
             tables of {WASM_TABLE_MAX} entries): {text}",
            WASM_MEMORY_KEPT_MAX / 1024
        )),
        other => other,
    }
}

fn too_large() -> FunctionError {
    FunctionError::Memory {
        limit: WASM_MEMORY_MAX,
    }
}

pub(super) fn failed(error: &Error) -> FunctionError {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => FunctionError::Steps { limit: WASM_FUEL_MAX },
        Some(TrapCode::GrowthOperationLimited | TrapCode::OutOfSystemMemory) => too_large(),
        Some(code) => FunctionError::Failed(format!("trap: {code}")),
        None => FunctionError::Failed(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}
