"""Hours of markets that tests share, and local times."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from hrm_runtime.market.hours import TradingHours

INDIA, AMERICA = "Asia/Kolkata", "America/New_York"

NSE = TradingHours(
    ["09:15-15:30"],
    INDIA,
    holidays=["2024-11-15", date(2024, 11, 1)],
    special={
        "2024-11-01": ["18:00-19:00"],  # Diwali
        date(2024, 3, 2): ["09:15-10:00", "11:30-12:30"],  # a Saturday
        "2024-11-14": [],
    },
)
FUTURES = TradingHours(["18:00-17:00"], AMERICA, weekdays=[6, 0, 1, 2, 3])
HOUR = 3600


def at(text: str, zone: str = INDIA) -> int:
    """Epoch seconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def listed(
    hours: TradingHours, day: str, minutes: int, zone: str = INDIA, days: int = 1
) -> list[str]:
    """Every bar that opens on `day`, as "opening-closing" by the local clock."""
    bars = []
    end = datetime.fromisoformat(day) + timedelta(days)
    for stamp in range(at(day, zone), at(str(end), zone), 60):
        closing = hours.closing(stamp, 60 * minutes)
        if closing is not None:
            moments = (datetime.fromtimestamp(one, ZoneInfo(zone)) for one in (stamp, closing))
            bars.append("-".join(f"{one:%H:%M}" for one in moments))
    return bars
