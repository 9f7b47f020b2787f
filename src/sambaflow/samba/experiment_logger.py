"""`samba.experiment_logger`: meters of the 2020 releases, whose formats are not public."""

from sambaflow.absent import absent

_REASON = "its format is not public; keep the numbers in the program"

AccMeter = absent("samba.experiment_logger.AccMeter", _REASON)
CountMeter = absent("samba.experiment_logger.CountMeter", _REASON)
DisplayMeter = absent("samba.experiment_logger.DisplayMeter", _REASON)
Logger = absent("samba.experiment_logger.Logger", _REASON)
