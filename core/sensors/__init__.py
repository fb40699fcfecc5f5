"""What band names mean: one sensor per file, the file's stem is its name, and each file defines `SENSOR`."""

from __future__ import annotations

import importlib
from functools import cache

from core.bands import Band, Sensor
from core.errors import ConfigError, nearest
from core.registry import names


def sensor_names() -> tuple[str, ...]:
    """List the sensors: the files of this folder, nothing imported."""
    return names("sensors")


@cache
def get_sensor(name: str) -> Sensor:
    """Give a sensor by name.

    Raises:
        ConfigError: no such sensor; the message names the nearest.
    """
    if name not in sensor_names():
        raise ConfigError(f"no sensor is called '{name}': {nearest(name, sensor_names())}")
    sensor = importlib.import_module(f"core.sensors.{name}").SENSOR
    assert isinstance(sensor, Sensor)
    assert sensor.name == name, f"core/sensors/{name}.py calls its sensor '{sensor.name}'"
    return sensor


def find_band(sensor: Sensor | str, name: str) -> Band:
    """Find a band of a sensor by its name or an alias.

    Raises:
        BandError: that sensor has no such band; the message names the nearest.
    """
    return (get_sensor(sensor) if isinstance(sensor, str) else sensor).find(name)
